"""What the pages say runs, and what they point to exists."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.recordings.nwb_files import movie, write

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", ["contributions.md", "adapters.md"])
def test_code_blocks_run_one_after_the_other(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    run_page(page, capsys)


def run_page(page, capsys):
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


def test_the_page_on_recordings_runs_on_a_session(tmp_path, monkeypatch, capsys):
    """Its blocks, one after the other, beside a session of four cells with repeats."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (200, 8, 8), dtype=np.uint8)
    shown = np.concatenate([frames, frames])
    spikes = {cell: np.sort(random.uniform(0, 4, 200)).tolist() for cell in (12, 4, 7, 9)}

    def fill(nwbfile):
        nwbfile.add_trial_column("split", "train or test")
        nwbfile.add_trial(0.0, 2.0, split="test")
        nwbfile.add_trial(2.0, 4.0, split="test")

    times = np.arange(400) / 100 + random.normal(0, 1e-4, 400)
    write(
        tmp_path / "session.nwb", fill, stimulus=movie(data=shown, timestamps=times), spikes=spikes
    )
    monkeypatch.chdir(tmp_path)
    run_page("recordings.md", capsys)
    assert (tmp_path / "overview.png").stat().st_size > 10_000


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    missing = [link for link in links if "://" not in link and not (ROOT / "docs" / link).exists()]
    assert not missing, f"{page} points to {missing}"
    named = re.findall(r"`((?:tests|benchmarks|retina_codec|models)/[\w/.]+)", text)
    assert all((ROOT / name).exists() for name in named), named
