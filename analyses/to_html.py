"""Run scripted notebooks as notebooks and keep what each shows as one HTML page.

    python analyses/to_html.py figure_8_retina --pages pages -- --out out --duration 20

Everything after ``--`` goes to the script. The page holds its text, its code, what it printed and
the pictures whose paths it printed. Needs ``pip install 'retina-codec[notebooks]'``.
"""

import argparse
import sys
from html import escape
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

BEFORE = """\
import sys
sys.argv = [{name!r}, *{words!r}]
sys.path.insert(0, {folder!r})
%matplotlib agg
"""
AFTER = """\
from pathlib import Path
from IPython.display import Image, display
for picture in sorted(Path({out!r}).glob({name!r} + "*.png")):
    display(Image(str(picture)))
"""

NARROW = ".jp-OutputArea-output pre{font-size:11px;overflow-x:auto;white-space:pre}"  # wide tables


def without_progress(outputs: list[Any]) -> list[Any]:
    """Leave out what went to the error stream: progress bars, which are news of the moment."""
    return [one for one in outputs if one.get("name") != "stderr"]


def render(script: Path, pages: Path, words: list[str]) -> Path:
    """Execute one script with these arguments; return the path of its page."""
    import jupytext
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import ExecutePreprocessor
    from nbformat.v4 import new_code_cell
    from traitlets.config import Config

    notebook = jupytext.read(script, fmt="py:percent")
    name, hidden = script.stem, {"tags": ["hidden"]}
    before = BEFORE.format(name=script.name, words=words, folder=str(HERE))
    after = AFTER.format(out=words[words.index("--out") + 1], name=name)
    first, last = (new_code_cell(code, metadata=hidden) for code in (before, after))
    notebook.cells = [first, *notebook.cells, last]
    runner = ExecutePreprocessor(timeout=None, kernel_name="python3")
    runner.preprocess(notebook, {"metadata": {"path": str(Path.cwd())}})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = without_progress(cell.outputs)
    look = Config()
    look.TagRemovePreprocessor.enabled = True
    look.TagRemovePreprocessor.remove_input_tags = {"hidden"}  # pictures stay, added code does not
    page, _ = HTMLExporter(config=look).from_notebook_node(notebook)
    pages.mkdir(parents=True, exist_ok=True)
    path = pages / f"{name}.html"
    partial = path.with_suffix(".html.partial")
    partial.write_text(page.replace("</head>", f"<style>{NARROW}</style></head>"), encoding="utf-8")
    partial.replace(path)
    return path


def write_index(pages: Path) -> Path:
    """Write index.html with a link to every page of the folder."""
    links = []
    for path in sorted(pages.glob("*.html")):
        if path.name == "index.html":
            continue
        script = HERE / f"{path.stem}.py"
        text = script.read_text(encoding="utf-8") if script.exists() else ""
        title = next((line[4:] for line in text.splitlines() if line.startswith("# # ")), path.stem)
        links.append(f'<li><a href="{path.name}">{escape(title)}</a></li>')
    index = pages / "index.html"
    style = "body{font:16px/1.6 sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}"
    index.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>retina-codec</title>'
        f"<style>{style}</style><h1>Figures</h1><ul>{''.join(links)}</ul></html>\n",
        encoding="utf-8",
    )
    return index


def main(words: list[str] | None = None) -> int:
    """Read the command line and render."""
    words = sys.argv[1:] if words is None else words
    place = words.index("--") if "--" in words else len(words)
    own, passed = words[:place], words[place + 1 :]
    names = sorted(path.stem for path in HERE.glob("*.py") if "# %%" in path.read_text("utf-8"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", nargs="+", choices=names, help="scripts here, without .py")
    parser.add_argument("--pages", type=Path, default=Path("pages"), help="folder for the page")
    chosen = parser.parse_args(own)
    if "--out" not in passed[:-1]:
        parser.error("the script needs a folder for what it makes: ... -- --out out")
    for name in chosen.name:
        print(render(HERE / f"{name}.py", chosen.pages, passed), flush=True)
    write_index(chosen.pages)
    return 0


if __name__ == "__main__":
    sys.exit(main())
