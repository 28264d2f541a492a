"""The house itself: imports run one way, importing is quick, and what the README says is true."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import retina_codec as rc

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "retina_codec"

# A wing may import itself and every wing before it.
WINGS = [
    ["errors", "progress", "lazy", "registry"],
    ["storage"],
    ["nulls"],
    ["recordings", "images"],
    ["statistics"],
    ["networks"],
    ["probing"],
    ["targets"],
    ["methods"],
    ["reductions"],
    ["contributions"],
    ["modes"],
    ["analysis"],
    ["figures"],
    ["report"],
    ["paper", "cli"],
]
RANK = {wing: rank for rank, wings in enumerate(WINGS) for wing in wings}
LARGEST_FOLDER = 15  # modules, `__init__.py` not counted

VERBS = {
    "adapt",
    "analyze",
    "completeness",
    "contribute",
    "decompose",
    "find_pathways",
    "fit_network",
    "hypothesize",
    "load_network",
    "open_recording",
    "open_tree",
    "receptive_fields",
    "save_network",
    "save_recording",
    "save_tree",
    "score_modes",
    "simulate_retina",
    "summarize",
    "write_report",
}
ERRORS = {"RecordingWarning", "RetinaCodecError"}
SUBMODULES = {
    "analysis",
    "figures",
    "images",
    "methods",
    "modes",
    "networks",
    "nulls",
    "recordings",
    "reductions",
    "report",
    "targets",
}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imports(source: str, known: set[str]) -> set[str]:
    """Modules that a source imports, wherever the import stands, functions included."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"relative import of {node.module}: write the whole name"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in names}
    return {name for name in found if name.split(".")[0] == "retina_codec"}


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """One circle of names, in order, or none: by removing what imports nothing that is left."""
    left = {name: set(others) - {name} for name, others in arrows.items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def grouped(arrows: dict[str, set[str]], depth: int) -> dict[str, set[str]]:
    """The same arrows between the folders (or modules) at a depth below the package."""
    found: dict[str, set[str]] = {}
    for name, others in arrows.items():
        here = ".".join(name.split(".")[: depth + 1])
        found.setdefault(here, set()).update(".".join(o.split(".")[: depth + 1]) for o in others)
    return found


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    known = modules()
    return {n: imports(p.read_text(encoding="utf-8"), set(known)) for n, p in known.items()}


def test_imports_run_one_way(arrows):
    wrong = {}
    for name, others in arrows.items():
        parts = name.split(".")
        if len(parts) == 1:
            continue
        assert parts[1] in RANK, f"{name} stands in no known wing; add it to WINGS"
        above = [
            other
            for other in others
            if other == "retina_codec" or RANK[other.split(".")[1]] > RANK[parts[1]]
        ]
        beside = [
            other
            for other in others
            if other != "retina_codec"
            and RANK[other.split(".")[1]] == RANK[parts[1]]
            and other.split(".")[1] != parts[1]
            and len(WINGS[RANK[parts[1]]]) > 1
            and RANK[parts[1]] > 0
        ]
        if above or beside:
            wrong[name] = above + beside
    assert not wrong, f"a wing may import only the wings before it: {wrong}"


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_there_is_no_circle_of_imports(arrows, depth):
    """Neither between modules nor between folders of any depth."""
    without_faces = {n: others - {"retina_codec"} for n, others in arrows.items()}
    assert circles(grouped(without_faces, depth)) == []


@pytest.mark.parametrize(
    ("arrows", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, ["a", "b", "c"]),
        ({"a": {"a"}}, []),
    ],
)
def test_a_circle_is_found(arrows, expected):
    assert circles(arrows) == expected


def test_a_late_import_is_found():
    source = "def f():\n    from retina_codec.cli import main\n    import retina_codec.modes"
    assert imports(source, {"retina_codec.cli.main"}) == {
        "retina_codec.cli.main",
        "retina_codec.modes",
    }


def test_no_folder_is_crowded():
    folders: dict[Path, int] = {}
    for path in PACKAGE.rglob("*.py"):
        folders[path.parent] = folders.get(path.parent, 0) + (path.name != "__init__.py")
    crowded = {str(f.relative_to(ROOT)): n for f, n in folders.items() if n > LARGEST_FOLDER}
    assert not crowded, f"no folder holds more than {LARGEST_FOLDER} modules: {crowded}"


def test_programs_end_only_in_the_command_line_and_in_scripts():
    wrong = []
    for name, path in modules().items():
        if name.split(".")[1:2] in (["cli"], ["paper"]):
            continue
        source = path.read_text(encoding="utf-8")
        wrong += [f"{name}: {word}" for word in ("argparse", "sys.exit") if word in source]
    assert not wrong, f"only cli/ and paper/ read arguments or end a program: {wrong}"


def test_no_function_is_long():
    """At most 60 lines of code in a body: blank lines, comments and the docstring do not count."""
    long = {}
    for name, path in modules().items():
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[ast.get_docstring(node) is not None :]
                if not body:
                    continue
                text = lines[body[0].lineno - 1 : node.end_lineno]
                code = [line for line in text if line.strip() and not line.strip().startswith("#")]
                if len(code) > 60:
                    long[f"{name}:{node.name}"] = len(code)
    assert not long, f"cut these functions where their subject changes: {long}"


def test_only_a_methods_own_file_asks_for_its_class():
    names = "ActGrad|ActNormGrad|InputGrad|IntegratedGradients|SmoothGrad|Surprisal"
    asking = re.compile(rf"isinstance\([^\n]*\b({names})\b")
    wrong = [
        f"{name}: {found.group(0)}"
        for name, path in modules().items()
        if (found := asking.search(path.read_text(encoding="utf-8")))
        and name.split(".")[1] not in ("methods", "targets")
    ]
    assert not wrong, f"ask the base class (units, passes, statistics, ...), not the class: {wrong}"


def test_heads_of_modules_say_what_they_do_in_three_lines():
    wrong = []
    for name, path in modules().items():
        head = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        text = head.split("Notation")[0].strip()
        if not text or len(text.splitlines()) > 3 or "Why this file exists" in head:
            wrong.append(name)
    assert not wrong, f"at most three lines on what the module does, then the notation: {wrong}"


def test_public_functions_take_at_most_twelve_parameters():
    many = {}
    for space in (rc, *(getattr(rc, name) for name in sorted(SUBMODULES))):
        public = dir(space) if hasattr(space, "__path__") else space.__all__
        for name in public:
            item = getattr(space, name)
            if inspect.isfunction(item) and len(inspect.signature(item).parameters) > 12:
                many[f"{space.__name__}.{name}"] = len(inspect.signature(item).parameters)
    assert not many, f"move rare options into one settings object: {many}"


def test_analyses_use_public_names_and_the_paper_wing():
    """Scripts of figures are read as examples of the public surface."""
    wrong = []
    for path in sorted((ROOT / "analyses").glob("*.py")):
        for name in imports(path.read_text(encoding="utf-8"), set(modules())):
            parts = name.split(".")
            public = len(parts) == 1 or (len(parts) == 2 and parts[1] in SUBMODULES)
            if not public and parts[1] != "paper":
                wrong.append(f"{path.name}: {name}")
    assert not wrong, f"analyses/ import public names and retina_codec.paper only: {wrong}"


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


def test_the_public_surface_is_small_and_documented():
    assert set(dir(rc)) == VERBS | ERRORS | SUBMODULES
    for name in VERBS | ERRORS:
        assert getattr(rc, name).__doc__, f"{name} has no docstring"
    for name in sorted(SUBMODULES):
        space = getattr(rc, name)
        assert space.__doc__
        for public in space.__all__:
            item = getattr(space, public)
            documented = not (inspect.isfunction(item) or inspect.isclass(item)) or item.__doc__
            assert documented, f"rc.{name}.{public} has no docstring"


def test_a_wrong_name_gets_its_closest_matches():
    with pytest.raises(AttributeError, match=r"no 'contributes'\. Did you mean contribute\?"):
        rc.contributes  # noqa: B018
    with pytest.raises(AttributeError, match="Did you mean TopK") as found:
        rc.targets.TopKay  # noqa: B018
    assert len(str(found.value)) < 120
    with pytest.raises(AttributeError, match=r"no 'zzzz'\. See dir\(retina_codec\)"):
        rc.zzzz  # noqa: B018


def test_public_names_do_not_hide_modules():
    """A name that is also a module of the same package would depend on what was imported first."""
    for stub in PACKAGE.rglob("__init__.pyi"):
        for node in ast.parse(stub.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ImportFrom):
                continue
            for alias in node.names:
                assert alias.asname == alias.name, f"{stub}: write `import name as name`"
                inside = stub.parent / alias.name
                is_module = inside.with_suffix(".py").exists() or inside.is_dir()
                assert is_module == (node.module is None), f"{stub}: {alias.name}"
