"""Code of the pages runs, links lead somewhere, and every name, verb and option exists."""

import ast
import re
from functools import reduce
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import retina_codec as rc
from tests.networks import published_files
from tests.networks.test_openretina import CoreReadout
from tests.recordings.nwb_files import movie, write
from tests.recordings.published_files import write_interneurons, write_published
from tests.recordings.white_noise.files import write_liu, write_ret1

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("docs", "datasets/*", "retina_codec/data/models/*", "benchmarks", "analyses", ".")
PAGES = sorted(
    {path.relative_to(ROOT).as_posix() for place in FOLDERS for path in ROOT.glob(f"{place}/*.md")}
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)

# Python blocks that the suite cannot run, by page and number (from 1). They are still compiled,
# and their imports from this package and every `rc.` name in them are looked up.
SKIPPED = {
    ("docs/scaling.md", 3): "needs a SLURM cluster and dask_jobqueue",
    ("docs/scaling.md", 4): "needs a Kubernetes cluster and dask_kubernetes",
    ("docs/adapters.md", 2): "downloads weights by timm",
}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str) -> list[str]:
    return [code for language, code in FENCE.findall(text_of(page)) if language == "python"]


WITH_CODE = [page for page in PAGES if blocks_of(page)]


def nwb_session(folder: Path, names: dict) -> None:
    """Write session.nwb: four cells, a movie shown twice."""
    del names
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (200, 8, 8), dtype=np.uint8)
    spikes = {cell: np.sort(random.uniform(0, 4, 200)).tolist() for cell in (12, 4, 7, 9)}

    def fill(nwbfile):
        nwbfile.add_trial_column("split", "train or test")
        nwbfile.add_trial(0.0, 2.0, split="test")
        nwbfile.add_trial(2.0, 4.0, split="test")

    times = np.arange(400) / 100 + random.normal(0, 1e-4, 400)
    shown = movie(data=np.concatenate([frames, frames]), timestamps=times)
    write(folder / "session.nwb", fill, stimulus=shown, spikes=spikes)


def published_networks(folder: Path, names: dict) -> None:
    """Write a published checkpoint; make a model of openretina's structure."""
    checkpoint = published_files.small_checkpoint()
    published_files.write(checkpoint, folder / "15-10-07_naturalscene.pt")
    names["model"] = CoreReadout().eval()


def published_recordings(folder: Path, names: dict) -> None:
    """Write one experiment and its interneurons in the published form."""
    del names
    place = folder / "ganglion_cell_data" / "15-10-07"
    place.mkdir(parents=True)
    write_published(place / "naturalscene.h5")
    (folder / "interneuron_data").mkdir()
    write_interneurons(folder / "interneuron_data" / "bipolars_late_2012.h5")


def salamander(folder: Path, names: dict) -> None:
    """Write counts in the layout of Liu et al. 2017."""
    del names
    write_liu(folder / "cell_data_01_NC.mat")


def mouse(folder: Path, names: dict) -> None:
    """Write spikes in the layout of crcns.org ret-1."""
    del names
    write_ret1(folder / "20080628_R3.mat")


def labelled_pictures(folder: Path, names: dict) -> None:
    """Write a folder of pictures in the layout of ImageNet, and superclasses of its classes."""
    del names
    from PIL import Image

    for number, name in enumerate(("n01440764", "n02102040")):
        place = folder / "imagenet" / "val" / name
        place.mkdir(parents=True)
        for picture in range(2):
            Image.new("RGB", (40, 48), (90 * number, 60 * picture, 9)).save(
                place / f"{picture}.png"
            )
    rows = "class,kind\nn01440764,fish\nn02102040,dog\n"
    (folder / "superclasses.csv").write_text(rows, encoding="utf-8")


PREPARED = {
    "docs/recordings.md": nwb_session,
    "docs/networks.md": published_networks,
    "docs/images.md": labelled_pictures,
    "datasets/liu_2017/card.md": salamander,
    "datasets/maheswaranathan_2023/card.md": published_recordings,
    "datasets/zhang_2008/card.md": mouse,
}


REGISTRIES = [rc.targets, rc.methods, rc.modes, rc.recordings, rc.figures]


@pytest.fixture
def _registries_as_before():
    """Forget what a page registers: other tests use the same registries."""
    kept = [(wing.registry, dict(wing.registry._items)) for wing in REGISTRIES]
    yield
    for registry, items in kept:
        registry._items.clear()
        registry._items.update(items)


@pytest.fixture
def run_page(tmp_path, monkeypatch, capsys, _registries_as_before):
    """Run a page's blocks one after the other, in a folder of its own."""

    def run(page: str) -> tuple[dict, list[str]]:
        monkeypatch.chdir(tmp_path)
        names: dict[str, object] = {"__name__": "page"}
        if page in PREPARED:
            PREPARED[page](tmp_path, names)
        printed = []
        for number, block in enumerate(blocks_of(page), 1):
            if (page, number) in SKIPPED:
                continue
            exec(compile(block, f"{page}, block {number}", "exec"), names)
            printed.append(capsys.readouterr().out)
            for told in re.findall(r"print\(.*\)  # (.*)", block):
                assert told in printed[-1], f"{page}, block {number}: {printed[-1]!r}, not {told!r}"
        plt.close("all")
        return names, printed

    return run


@pytest.mark.parametrize("page", sorted(set(WITH_CODE) - {"README.md"}))
def test_python_blocks_run_one_after_the_other(page, run_page):
    run_page(page)


def test_the_readme_runs_and_prints_what_it_promises(run_page):
    names, (retina, images) = run_page("README.md")
    cells = names["recording"]["test/cell"].values
    assert len(cells) == 16
    rows = re.findall(r"^(\S+)\s+\d+$", retina, flags=re.MULTILINE)
    assert {str(cell) for cell in cells} <= set(rows)
    assert 0 < float(retina.splitlines()[-1]) <= 1
    layers = names["adapter"].layers
    assert len(layers) == 8
    assert all(len(re.findall(rf"\b{re.escape(layer)}\b", images)) >= 2 for layer in layers)


def test_the_table_of_skipped_blocks_names_existing_blocks():
    assert all(1 <= number <= len(blocks_of(page)) for page, number in SKIPPED)
    assert all(len(reason) > 10 for reason in SKIPPED.values())


@pytest.mark.parametrize("page", PAGES)
def test_no_python_hides_in_blocks_of_another_kind(page):
    for language, code in FENCE.findall(text_of(page)):
        assert language in {"python", "sh", "text", "json"}, f"{page}: a block says {language!r}"
        hidden = re.search(r"^(from|import) \w+|\brc\.\w+\(", code, flags=re.MULTILINE)
        assert language == "python" or not hidden, f"{page}: {code}"
    opened = text_of(page).count("```")
    assert opened == 2 * len(FENCE.findall(text_of(page))), f"{page}: a block is not closed"


def resolve(dotted: str) -> None:
    """Look a public name up; AttributeError tells what is near."""
    reduce(getattr, dotted.split("."), rc)


@pytest.mark.parametrize("page", PAGES)
def test_every_public_name_exists(page):
    text = text_of(page)
    if page == "CHANGELOG.md":  # the left column of a table of renames holds what is gone
        text = re.sub(r"^\| `[^|]*\|", "|", text, flags=re.MULTILINE)
    for dotted in set(re.findall(r"\brc\.((?:[A-Za-z_]\w*\.)*[A-Za-z]\w*)\b(?!\.\.)", text)):
        resolve(dotted)
    for code in blocks_of(page):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("retina_codec"):
                exec(compile(ast.Module([node], []), page, "exec"), {})


def test_the_page_of_public_names_is_up_to_date():
    place = spec_from_file_location("api", ROOT / "docs" / "api.py")
    module = module_from_spec(place)
    place.loader.exec_module(module)
    assert text_of("docs/api.md") == module.page(), "docs/api.md is not up to date; run `make api`"


def test_old_names_in_the_changelog_are_gone_and_new_ones_exist():
    rows = re.findall(r"^\| `rc\.(\w+)` \| `([\w.]+)` \|$", text_of("CHANGELOG.md"), re.MULTILINE)
    assert len(rows) == 75
    for old, new in rows:
        assert old not in dir(rc)
        package, _, name = new.replace("retina_codec.", "rc.").rpartition(".")
        home = import_module(package.replace("rc", "retina_codec", 1))
        assert name in home.__all__, new


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_and_named_files_exist(page):
    text = text_of(page)
    here = (ROOT / page).parent
    for link in re.findall(r"\]\(\s*([^)\s]+)\s*\)", text):
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        target = here / place if place else ROOT / page
        assert target.exists(), f"{page} points to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page} points to {link}"
    places = "tests|benchmarks|retina_codec|models|analyses|datasets|docs"
    named = re.findall(rf"(?:`|python )((?:{places})/[\w/.]+)", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing, f"{page} names {missing}"


@pytest.mark.parametrize("page", PAGES)
def test_verbs_of_make_exist(page):
    verbs = set(re.findall(r"^([a-z-]+):.*##", text_of("Makefile"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text_of(page), flags=re.MULTILINE)) <= verbs


def test_contributing_explains_every_verb():
    verbs = set(re.findall(r"^([a-z-]+):.*##", text_of("Makefile"), flags=re.MULTILINE))
    told = set(re.findall(r"^\| `make ([a-z-]+)", text_of("CONTRIBUTING.md"), flags=re.MULTILINE))
    assert told == verbs - {"help"}


@pytest.mark.parametrize("page", [*PAGES, "Makefile"])
def test_commands_and_their_options_exist(page):
    from retina_codec.cli.main import commands

    joined = re.sub(r"\\\n\s*|(?<=\S)\n(?=--)", " ", text_of(page))
    for command, rest in re.findall(r"retina-codec ([a-z]+)\b([^\n`|]*)", joined):
        assert command in commands.commands, f"{page}: retina-codec {command}"
        known = {name for option in commands.commands[command].params for name in option.opts}
        used = set(re.findall(r"(?<=\s)--[a-z-]+", rest)) - {"--help"}
        assert used <= known, f"{page}: retina-codec {command}{rest}"
