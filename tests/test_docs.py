"""What the pages say runs, and what they point to exists."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", ["contributions.md"])
def test_code_blocks_run_one_after_the_other(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
        printed = capsys.readouterr().out
        for told in re.findall(r"print\(.*\)  # (.*)", block):
            assert told in printed, f"{page}, block {number} prints {printed!r}, not {told!r}"
    plt.close("all")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    missing = [link for link in links if "://" not in link and not (ROOT / "docs" / link).exists()]
    assert not missing, f"{page} points to {missing}"
    named = re.findall(r"`((?:tests|benchmarks|retina_codec|models)/[\w/.]+)", text)
    assert all((ROOT / name).exists() for name in named), named
