"""Version from the tag, pins within their ranges, workflows that use the verbs of the Makefile."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import retina_codec as rc

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def _read(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _project() -> dict:
    return tomllib.loads(_read("pyproject.toml"))


def coming() -> str:
    """Return the release that a clone without tags leads to."""
    return Version(_project()["tool"]["setuptools_scm"]["fallback_version"]).base_version


def test_the_version_is_written_nowhere_in_the_package():
    assert "version" in _project()["project"]["dynamic"]
    assert not re.search(r"__version__ = \"\d+\.\d+", _read("retina_codec/__init__.py"))
    assert Version(rc.__version__) >= Version("0.1")


def test_citation_and_changelog_name_the_coming_version():
    newest = re.search(
        r"^## (\S+), (not yet released|\d{4}-\d\d-\d\d)$", _read("CHANGELOG.md"), re.M
    )
    assert newest, "the first heading of CHANGELOG.md reads '## 1.2.3, not yet released' or a date"
    assert newest[1] == coming()
    assert f"\nversion: {coming()}\n" in _read("CITATION.cff")


@pytest.mark.parametrize(("tag", "expected"), [(None, "{}.dev1"), ("v9.1.0", "9.1.0")])
def test_the_version_follows_the_tag(tmp_path, tag, expected):
    """Also in a clone without tags, as continuous integration makes it."""
    pytest.importorskip("setuptools_scm")
    table = r"^\[tool\.setuptools_scm\]\n(?:\w.*\n)+"
    settings = re.search(table, _read("pyproject.toml"), re.MULTILINE)[0]
    (tmp_path / "pyproject.toml").write_text(
        f'[project]\nname = "retina-codec"\ndynamic = ["version"]\n{settings}\n', encoding="utf-8"
    )
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "one"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    if tag:
        subprocess.run(["git", "tag", tag], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "setuptools_scm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == expected.format(coming())


def test_every_dependency_is_pinned_within_its_range():
    project = _project()["project"]
    wanted = [*project["dependencies"]]
    for extra, requirements in project["optional-dependencies"].items():
        wanted += requirements if extra not in ("images",) else []
    wanted += [text for text in _project()["build-system"]["requires"] if "scm" in text]
    lines = [line for line in _read("constraints.txt").splitlines() if line and line[0] != "#"]
    pins = {canonicalize_name(name): version for name, version in (li.split("==") for li in lines)}
    assert len(pins) == len(lines), "a package is pinned twice"
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{name}: {pins[name]} is out of range"


def _steps(path: Path) -> list[dict]:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
    return [step for job in jobs for step in job.get("steps", [])]


def test_continuous_integration_types_the_verbs_that_a_person_types():
    verbs = set(re.findall(r"^([a-z-]+):.*##", _read("Makefile"), flags=re.MULTILINE))
    typed = [step["run"] for path in WORKFLOWS for step in _steps(path) if "run" in step]
    made = {verb for text in typed for verb in re.findall(r"\bmake ([a-z-]+)", text)}
    assert {"check", "test", "coverage", "wheel-test"} <= made <= verbs
    assert not [text for text in typed if "pytest" in text or "pip " in text]
    assert re.findall(r"^make ([a-z-]+)$", _read(".ci/run"), re.MULTILINE) == ["check", "test"]


def test_actions_are_pinned_by_commit():
    used = [step["uses"] for path in WORKFLOWS for step in _steps(path) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", one) for one in used), used


def test_the_matrix_holds_every_python_that_the_package_names():
    jobs = yaml.safe_load(_read(".github/workflows/tests.yml"))["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    named = [line.split(" :: ")[-1] for line in _project()["project"]["classifiers"]]
    assert matrix["python"] == [name for name in named if name.startswith("3.")]
    assert len(matrix["os"]) == 3


def test_only_the_publishing_job_may_publish():
    jobs = yaml.safe_load(_read(".github/workflows/release.yml"))["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "permissions" not in jobs["build"]


def test_hooks_before_a_commit_need_no_download():
    (repo,) = yaml.safe_load(_read(".pre-commit-config.yaml"))["repos"]
    assert repo["repo"] == "local"
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}
