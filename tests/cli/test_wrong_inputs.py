"""Wrong values for every option and argument of every command: status 2 and one line that names it.

The options are read from the commands, so that new ones are tried as well.
"""

import re
from pathlib import Path

import click
import numpy as np
import pytest

from retina_codec.cli import main as cli
from retina_codec.networks.checkpoints import save_network
from retina_codec.recordings.files import open_recording, save_recording
from retina_codec.storage.trees import open_tree
from tests.small import small_network, small_recording

GOOD = {  # arguments and required options of every command
    "demo": ["--out", "new"],
    "analyze": ["session.nc", "--network", "network", "--out", "new"],
    "fit": ["session.nc", "--out", "new"],
    "convert": ["session.nc", "new.zarr"],
    "look": ["session.nc", "--out", "new.png"],
    "export": ["results.nc", "session.nwb", "--out", "new.nwb"],
    "report": ["results.nc", "--out", "new.html"],
}


def parameters():
    for name, command in cli.commands.commands.items():
        for parameter in command.params:
            yield name, parameter


def wrong_types():
    """Values that no parser of the option takes."""
    for name, parameter in parameters():
        option = parameter.opts[0]
        kind, count = parameter.type, parameter.nargs
        if not isinstance(parameter, click.Option):
            continue
        if parameter.is_flag:
            yield name, option, [f"{option}=yes"]
            continue
        yield name, option, [option]  # the value is missing
        if isinstance(kind, click.IntRange | click.FloatRange | type(click.INT)):
            values = ["many", "1.5.2", "nan" if isinstance(kind, type(click.INT)) else "one"]
            least = getattr(kind, "min", None)
            values += [str(least - 1)] if least is not None else []
            for value in values:
                yield name, option, [option, *[value] * count]
        if isinstance(kind, click.Choice):
            yield name, option, [option, "nothing-of-the-kind"]


def places():
    """Wrong files and folders for everything that is a path."""
    for name, parameter in parameters():
        key = parameter.opts[0]
        if key == "--out" or key == "destination":
            for value in ("file.txt", "folder", "file.txt/inside.png"):
                yield name, key, value
        elif key in ("recording", "source", "session", "results", "--network"):
            for value in ("nowhere", "nowhere.nc", "nowhere.nwb", "file.txt", "folder", "empty.nc",
                          "text.nc", "text.nwb"):  # fmt: skip
                yield name, key, value
        elif key == "--resume":
            yield name, key, "folder"
            yield name, key, "new/state"


SETTINGS = [
    "stimulus", "=movie", "no name=3", "nothing=3", "cells=[\"zz\"]", "cells=[]",
    "bins_per_frame=many", "splits=first", "splits={\"test\": 3}", "stimulus=nothing",
    "frame_rate=-1", "units=[]", "repair_clock=perhaps", "spike_time_unit=hours",
    "cell_types=nowhere.csv", "axis_order=zyx",
]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrong")
    network = small_network()
    save_network(network, folder / "network")
    recording = small_recording(network, bins=120, train_bins=900)
    save_recording(recording, folder / "session.nc")
    save_recording(recording, folder / "session.nwb")
    (folder / "results.nc").write_bytes((folder / "session.nc").read_bytes())
    (folder / "folder").mkdir()
    (folder / "folder" / "mine.txt").write_text("mine")
    (folder / "file.txt").write_text("a,b\n")
    (folder / "text.nc").write_text("a,b\n")
    (folder / "text.nwb").write_text("a,b\n")
    (folder / "empty.nc").write_bytes(b"")
    return folder


@pytest.fixture
def there(files, monkeypatch):
    """The files, and a failure if a long computation begins or anything is written."""

    def begun(*_args, **_settings):
        pytest.fail("the long work began before the input was checked")

    for place in (
        "retina_codec.analysis.analyze.analyze",
        "retina_codec.networks.retina.fitting._Loop.__init__",
        "retina_codec.recordings.simulated.retina.simulate_retina",
        "retina_codec.recordings.quality.cells.measure_quality",
    ):
        monkeypatch.setattr(place, begun)
    monkeypatch.chdir(files)
    before = sorted(path.relative_to(files) for path in files.rglob("*"))
    yield files
    assert sorted(path.relative_to(files) for path in files.rglob("*")) == before


def refused(arguments, capsys):
    """The one line of an error."""
    assert cli.main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if not re.match(r"^\[ *\d+\.\d s\] ", line)]
    errors = [line for line in lines if not line.startswith("retina-codec: warning: ")]
    assert len(errors) == 1, err
    assert errors[0].startswith("retina-codec: ")
    assert "Traceback" not in err
    assert len(errors[0]) < 700
    return errors[0]


def replaced(command, key, value):
    """The good arguments of a command with one other value."""
    arguments = list(GOOD[command])
    if key in arguments:
        arguments[arguments.index(key) + 1] = value
    elif key.startswith("--"):
        arguments += [key, value]
    else:
        positions = [p.opts[0] for p in cli.commands.commands[command].params
                     if isinstance(p, click.Argument)]  # fmt: skip
        arguments[positions.index(key)] = value
    return arguments


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("command", GOOD)
def test_values_of_another_type_name_the_option(command, capsys):
    cases = [case for case in wrong_types() if case[0] == command]
    assert len(cases) >= 2
    for _, option, words in cases:
        line = refused([command, *GOOD[command], *words], capsys)
        assert option in line, line


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("command", GOOD)
def test_missing_and_unknown_words_are_named(command, capsys):
    for missing in range(len(GOOD[command])):
        left = GOOD[command][:missing] + GOOD[command][missing + 1 :]
        assert cli.main([command, *left]) == 2
        capsys.readouterr()
    assert "--nothing" in refused([command, *GOOD[command], "--nothing"], capsys)
    assert "surplus" in refused([command, *GOOD[command], "surplus"], capsys)


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("command", GOOD)
def test_wrong_places_are_named(command, capsys):
    cases = [case for case in places() if case[0] == command]
    assert len(cases) >= 3
    for _, key, value in cases:
        if command == "report" and key == "results" and value == "text.nwb":
            value = "nowhere"
        line = refused([command, *replaced(command, key, value)], capsys)
        assert value in line or Path(value).parent.name in line, (key, value, line)
        if key.startswith("--"):
            assert key in line, (key, value, line)


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("command", ["analyze", "fit", "convert", "look"])
@pytest.mark.parametrize("file", ["session.nwb", "session.nc"])
def test_wrong_settings_are_named_before_anything_is_said_of_damage(command, file, capsys):
    key = "source" if command == "convert" else "recording"
    for setting in SETTINGS:
        line = refused([command, *replaced(command, key, file), "--set", setting], capsys)
        name, _, value = setting.partition("=")
        assert name in line or value in line, (setting, line)
        assert "damaged" not in line, (setting, line)
        assert "copy it again" not in line, (setting, line)


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    ("command", "words", "says"),
    [
        ("analyze", ["--layer", "conv9"], "--layer must name layers of the network; got conv9"),
        ("demo", ["--layer", "conv9"], "--layer must name layers of the network; got conv9"),
        ("analyze", ["--active", "5", "--modes", "4"], "--active must be at most --modes; got 5"),
        ("fit", ["--kernels", "4", "5", "5"], "--kernels must be odd; got 4 5 5"),
        ("fit", ["--kernels", "9", "9", "9", "--history", "8"], "Use smaller --kernels"),
        ("analyze", ["--device", "cuda:99"], "--device cuda:99 needs a CUDA device"),
        ("analyze", ["--device", "tpu"], "--device must be cpu, cuda or cuda:N"),
        ("analyze", ["--set", "cells=[\"a\"]", "--set", "cells=[\"b\"]"], "give cells once"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(command, words, says, capsys):
    line = refused([command, *GOOD[command], *words], capsys)
    assert says in line


@pytest.mark.usefixtures("there")
def test_cells_can_be_chosen_in_every_format(capsys, tmp_path):
    for file in ("session.nc", "session.nwb"):
        out = tmp_path / f"{Path(file).suffix[1:]}.nc"
        chosen = 'cells=["c", "a"]'
        assert cli.main(["convert", file, str(out), "--set", chosen]) == 0, capsys.readouterr()
        kept = open_recording(out)
        whole = open_recording("session.nc")
        assert len(kept["test/cell"]) == len(kept["train/cell"]) == 2
        for cell in kept["test/cell"].values:
            np.testing.assert_array_equal(
                kept["test/spike_count"].sel(cell=cell), whole["test/spike_count"].sel(cell=cell)
            )


def test_fit_without_a_train_part_says_what_to_add(there, capsys):
    recording = open_tree("session.nc", lazy=False)
    del recording["train"]
    save_recording(recording, there / "test_only.nc")
    try:
        line = refused(["fit", "test_only.nc", "--out", "new"], capsys)
    finally:
        (there / "test_only.nc").unlink()
    assert "--set 'splits={" in line
