"""The house itself: imports run one way, importing is quick, and what the README says is true."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import retina_codec as rc

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "retina_codec"

# A room may use itself and every room before it.
ROOMS = [
    {"errors", "hdf5_input", "hdf5_output", "progress"},
    {"storage"},
    {"recordings"},
    {"networks"},
    {"contributions"},
    {"modes"},
    {"analysis"},
    {"figures"},
    {"report"},
    {"cli_options"},
    {"cli_recordings"},
    {"cli"},
]
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}

PUBLIC = {
    "ActGrad",
    "ActNormGrad",
    "AllUnits",
    "BatchTopKAutoencoder",
    "CenterCrop",
    "ChannelSums",
    "CircularShift",
    "Contrast",
    "Entropy",
    "GatedAutoencoder",
    "HeadSums",
    "ImageStudy",
    "InputGrad",
    "IntegratedGradients",
    "KMeans",
    "LinearShift",
    "NMF",
    "Normalisation",
    "OtherSessions",
    "PCA",
    "Probability",
    "RawChannels",
    "RecordingWarning",
    "RetinaCNN",
    "RetinaCodecError",
    "SeededFrames",
    "SegmentPermutation",
    "SemiNMF",
    "SmallResNet",
    "SmallViT",
    "SmoothGrad",
    "SparseAutoencoder",
    "Sum",
    "Surprisal",
    "TopK",
    "TopKAutoencoder",
    "TrainingSettings",
    "Unit",
    "activation_tree",
    "adapt",
    "all_fields",
    "analyze",
    "combination_effect",
    "completeness",
    "concept_table",
    "contribute",
    "contribution_statistics",
    "control_curves",
    "convert",
    "correlate_concepts",
    "decompose",
    "digit_scenes",
    "export_results",
    "field_measures",
    "find_leakage",
    "find_pathways",
    "fit_network",
    "from_openretina",
    "head_sparsity",
    "hoyer_sparsity",
    "hypotheses_to_table",
    "hypothesize",
    "import_results",
    "input_map",
    "load_image_network",
    "load_network",
    "make_recording",
    "measure_quality",
    "mode_gallery",
    "mode_maps",
    "open_images",
    "open_recording",
    "open_study",
    "open_tree",
    "overlay",
    "own_contributions",
    "perturb",
    "plot_recording",
    "predict_rates",
    "read_hierarchy",
    "read_interneurons",
    "receptive_fields",
    "register_generator",
    "save_network",
    "save_recording",
    "save_tree",
    "score_modes",
    "score_table",
    "separable_kernels",
    "significance",
    "simulate_retina",
    "smooth_rates",
    "summarize",
    "top_images",
    "validate_recording",
    "write_report",
}


def wrong_imports(source: str, room: str) -> list[str]:
    """Imports of a later room, wherever they stand in the file, functions included."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
            if node.level:
                wrong.append(f"relative import of {module or names}")
        for name in names:
            parts = name.split(".")
            if parts[0] != "retina_codec" or len(parts) < 2:
                continue
            if parts[1] not in RANK:
                wrong.append(f"{name}: no such room, or the root package itself")
            elif RANK[parts[1]] > RANK[room]:
                wrong.append(name)
    return wrong


def test_imports_run_one_way():
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            continue
        assert parts[0] in RANK, f"{path.name} stands in no known room; add it to ROOMS"
        if wrong := wrong_imports(path.read_text(encoding="utf-8"), parts[0]):
            found[str(path.relative_to(ROOT))] = wrong
    assert not found, f"a room may only use the rooms before it: {found}"


@pytest.mark.parametrize(
    ("line", "room", "expected"),
    [
        ("from retina_codec.analysis.analyze import analyze", "modes", 1),
        ("def f():\n    import retina_codec.cli.main", "report", 1),
        ("from retina_codec import figures", "networks", 1),
        ("from .engine import contribute", "contributions", 1),
        ("from retina_codec.errors import RetinaCodecError", "recordings", 0),
        ("from retina_codec import figures", "cli", 0),
        ("from retina_codec import analyze", "cli", 1),
    ],
)
def test_a_wrong_import_is_found(line, room, expected):
    assert len(wrong_imports(line, room)) == expected


def test_import_leaves_heavy_libraries_alone():
    heavy = ["pynwb", "hdmf", "sklearn", "matplotlib", "skimage", "zarr", "jinja2", "captum"]
    program = f"import sys, retina_codec; print([m for m in {heavy} if m in sys.modules])"
    assert _run(program) == "[]", "import these inside the functions that need them"


def test_import_is_quick():
    clock = "import time; start = time.process_time(); {}; print(time.process_time() - start)"
    floor = min(float(_run(clock.format("import torch, xarray"))) for _ in range(2))
    ours = min(float(_run(clock.format("import retina_codec"))) for _ in range(2))
    assert ours < floor + 0.7, (
        f"importing takes {ours:.2f} s of CPU, torch and xarray {floor:.2f} s"
    )


def _run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_public_names_are_the_documented_ones():
    assert set(rc.__all__) == PUBLIC | {"__version__"}
    for name in PUBLIC:
        assert getattr(rc, name).__doc__, f"{name} has no docstring"


def test_readme_examples_run(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    retina, images = re.findall(r"```python\n(.*?)```", _read("README.md"), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(retina, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    cells = names["network"].cells
    assert len(cells) == 16
    assert all(re.search(rf"^{re.escape(str(cell))}\s+\d+$", printed, re.M) for cell in cells)
    assert float(printed.splitlines()[-1]) <= 1
    exec(compile(images, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    layers = names["adapter"].layers
    assert len(layers) == 8
    assert all(len(re.findall(rf"\b{re.escape(layer)}\b", printed)) >= 2 for layer in layers)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_pages_name_only_what_exists(page):
    text = _read(page)
    links = re.findall(r"\]\(([^)#]+)\)", text)
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing, f"{page} points to {missing}"
    verbs = set(re.findall(r"^([a-z-]+):.*##", _read("Makefile"), flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE))
    assert named
    assert named <= verbs


@pytest.mark.parametrize(
    "command", ["demo", "analyze", "fit", "convert", "report", "look", "export"]
)
def test_commands_in_the_readme_parse(command):
    from retina_codec.cli.main import commands

    options = {name for option in commands.commands[command].params for name in option.opts}
    for page in ("README.md", "CHANGELOG.md", "Makefile"):
        for line in re.findall(rf"retina-codec {command} .*--.*", _read(page)):
            used = set(re.findall(r"--[a-z-]+", line)) - {"--help"}
            assert used <= options, f"{page}: {line}"


def test_every_dependency_is_pinned_within_its_range():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads(_read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["test"], *extras["check"]]
    pins = dict(
        line.split("==")
        for line in _read("constraints.txt").splitlines()
        if line and not line.startswith("#")
    )
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{name}: {pins[name]} is out of range"


def test_version_stands_in_one_number():
    version = tomllib.loads(_read("pyproject.toml"))["project"]["version"]
    assert rc.__version__ == version
    assert f"\nversion: {version}\n" in _read("CITATION.cff")
    assert f"\n## {version}" in _read("CHANGELOG.md")


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
