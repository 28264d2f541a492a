"""Sound HDF5 files with wrong content: read, or refused by file, place, what must hold, way out."""

import re
import warnings

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import retina_codec as rc
from retina_codec.errors import RecordingWarning, RetinaCodecError
from tests.recordings.nwb_files import (
    FRAMES,
    RATE,
    index_series,
    intervals,
    movie,
    pictures,
    write,
)
from tests.recordings.published_files import write_published

ENDS = np.arange(13) * 0.1
WAYS = re.compile(
    r"\b([Pp]ass|[Cc]opy|[Cc]orrect|[Ww]rite|[Tt]ake|[Cc]hoose|[Oo]pen|[Dd]ownload|[Ss]ort|[Cc]lose"
    r"|[Cc]ut|[Bb]ring|[Rr]un|[Kk]eep|[Ll]eave|[Bb]uild|[Rr]epair|[Ss]tore|[Aa]dd)\b"
)


def with_trials(nwbfile):
    nwbfile.add_time_intervals(
        intervals(
            "trials_of_movie", [0.0, 0.4, 0.8], [0.4, 0.8, 1.2],
            split=["train", "test", "test"], repeat=[-1, 0, 1],
        )
    )  # fmt: skip


def with_index(nwbfile):
    shown = pictures(order=range(12))
    nwbfile.add_stimulus_template(shown)
    nwbfile.add_stimulus(index_series(shown, np.arange(12), timestamps=ENDS[:-1]))
    nwbfile.add_time_intervals(intervals("shown", ENDS[:-1], ENDS[1:]))


def with_table(nwbfile):
    nwbfile.add_stimulus_template(movie("film", data=FRAMES[:12]))
    nwbfile.add_time_intervals(
        intervals(
            "film_presentations", ENDS[:-1], ENDS[1:], frame=list(range(12)),
            stimulus_name=["film"] * 12,
        )
    )  # fmt: skip


def with_potential(nwbfile):
    from pynwb.icephys import CurrentClampSeries

    device = nwbfile.create_device("amplifier")
    electrode = nwbfile.create_icephys_electrode("e", device=device, description="sharp")
    nwbfile.add_acquisition(
        CurrentClampSeries(
            name="Vm", data=np.linspace(-0.05, -0.04, 240), electrode=electrode, gain=1.0,
            rate=200.0, starting_time=0.0,
        )
    )  # fmt: skip


def observed(file):
    units = file["units"]
    units["obs_intervals"] = [[0.0, 1.2], [0.0, 1.2], [0.0, 1.2]]
    units["obs_intervals_index"] = np.array([1, 2, 3], dtype="u8")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The bytes of sound files, and the places in each."""
    folder = tmp_path_factory.mktemp("sound")
    types = {"cell_type": ["ON", "OFF", "ON"], "quality": ["good", "good", "bad"]}
    repeated = np.concatenate([FRAMES[:20], FRAMES[20:40], FRAMES[20:40]])
    trials = {"stimulus": movie(data=repeated), "columns": types, "mend": observed}
    paths = [
        write(folder / "timed.nwb", stimulus=movie(timestamps=np.arange(60) / RATE), columns=types),
        write(folder / "trials.nwb", with_trials, **trials),
        write(folder / "index.nwb", with_index, stimulus=()),
        write(folder / "table.nwb", with_table, stimulus=()),
        write(folder / "potential.nwb", with_potential),
        write_published(folder / "a.h5", size=(4, 3), train_frames=60, test_frames=40, cells=3),
    ]
    found = []
    for path in paths:
        places = []
        with h5py.File(path, "r") as file:
            file.visit(places.append)
            attributes = [f"{p}@{a}" for p in places for a in file[p].attrs]
        kept = [
            p for p in [*places, *attributes] if not p.startswith(("specifications", "general/d"))
        ]
        found.append((path.name, path.read_bytes(), sorted(kept)))
    return found


def values_of(kind, old, random):
    """Values of a wrong kind or shape in place of old ones."""
    shape = np.shape(old)
    count = max(1, int(np.prod(shape)))
    return {
        "text": lambda: np.full(shape, b"abc"),
        "words": lambda: np.array(["x"] * count, dtype=object).reshape(shape or ()),
        "nan": lambda: np.full(shape, np.nan),
        "infinite": lambda: np.full(shape, np.inf),
        "negative": lambda: np.full(shape, -1.0 - random.integers(0, 3)),
        "zero": lambda: np.zeros(shape),
        "huge": lambda: np.full(shape, 1e300),
        "some nan": lambda: np.where(random.random(shape or (1,)) < 0.3, np.nan, 1.0),
        "longer": lambda: np.zeros((*(n + 3 for n in shape), *(() if shape else (2,)))),
        "shorter": lambda: np.zeros(tuple(max(0, n - 1) for n in shape)),
        "empty": lambda: np.zeros((0,) * len(shape)),
        "scalar": lambda: np.float64(random.integers(-2, 100)),
        "further axis": lambda: np.zeros((*shape, 2)),
        "record": lambda: np.zeros(shape, dtype=[("a", "f4"), ("b", "i2")]),
        "bool": lambda: np.zeros(shape, bool),
        "complex": lambda: np.zeros(shape, complex),
        "backwards": lambda: np.asarray(old)[::-1] if shape and np.asarray(old).dtype.kind in "iuf"
        else np.float64(7),
        "shuffled": lambda: random.permutation(np.asarray(old)) if shape else np.float64(3),
        "large whole": lambda: np.full(shape, 2**40),
    }[kind]()  # fmt: skip


KINDS = [
    *("text", "words", "nan", "infinite", "negative", "zero", "huge", "some nan", "longer"),
    *("shorter", "empty", "scalar", "further axis", "record", "bool", "complex", "backwards"),
    *("shuffled", "large whole", "deleted", "group", "link to nowhere", "link outside", "null"),
    *("reference", "virtual"),
]


def spoil(file, place, kind, random):
    """Change one place of a file; h5py may refuse some changes, which then leave it as it was."""
    name, _, attribute = place.partition("@")
    holder = file[name].attrs if attribute else file
    key = attribute or name
    old = holder[key]
    if not attribute:
        old = old[()] if isinstance(old, h5py.Dataset) else np.zeros(2)
    kept = dict(file[name].attrs) if not attribute else {}
    del holder[key]
    if kind == "deleted":
        return
    if attribute:
        holder[key] = values_of(kind, old, random) if kind in KINDS[:19] else b"?"
        return
    if kind == "group":
        file.create_group(name)
    elif kind == "link to nowhere":
        file[name] = h5py.ExternalLink("nowhere.h5", "/a")
        return
    elif kind == "link outside":
        file[name] = h5py.ExternalLink("../outside.h5", "/a")
        return
    elif kind == "null":
        file[name] = h5py.Empty("f8")
    elif kind == "reference":
        file[name] = np.full(np.shape(old) or (1,), file["/"].ref, dtype=h5py.ref_dtype)
    elif kind == "virtual":
        layout = h5py.VirtualLayout(np.shape(old) or (1,), "f8")
        layout[...] = h5py.VirtualSource("nowhere.h5", "a", np.shape(old) or (1,))
        file.create_virtual_dataset(name, layout)
    else:
        file[name] = values_of(kind, old, random)
    for title, value in kept.items():
        file[name].attrs[title] = value


def check(path, place, kind):
    """Open and read; a refusal must be one line that leads on."""
    where = f"{place} made {kind}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)
        try:
            recording = rc.open_recording(path)
            for split in ("train", "test"):
                if split in recording.children:
                    recording[f"{split}/stimulus"].compute()
                    counts = recording[f"{split}/spike_count"].to_numpy()
                    assert not (counts < 0).any(), where
        except RetinaCodecError as error:
            text = str(error)
        else:
            return "read"
    assert "\n" not in text, (where, text)
    assert len(text) < 1200, (where, text)
    assert path.name in text, (where, text)
    assert re.search(r"\bmust\b|points to|outside its own folder", text), (where, text)
    assert WAYS.search(text), (where, text)
    parts = [part for part in re.split("[/@]", place) if part]
    assert any(part in text for part in parts) or re.search("unit|interval|stimulus", text), (
        where, text,
    )  # fmt: skip
    assert not re.search(r"damaged", text) or "link" not in kind, (where, text)
    return "refused"


def run(sound, folder, draw):
    """One draw: a file, a place, a change."""
    number, spot, kind, seed = draw
    name, data, places = sound[number % len(sound)]
    place = places[spot % len(places)]
    path = folder / name
    path.write_bytes(data)
    try:
        with h5py.File(path, "a") as file:
            spoil(file, place, kind, np.random.default_rng(seed))
    except (TypeError, ValueError, OSError, KeyError, RuntimeError):
        return "not spoiled"
    return check(path, place, kind)


DRAWS = st.tuples(
    st.integers(0, 5), st.integers(0, 10**4), st.sampled_from(KINDS), st.integers(0, 99)
)
QUIET = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@settings(max_examples=100, **QUIET)
@given(draw=DRAWS)
def test_wrong_content_is_read_or_refused_with_a_way_out(sound, tmp_path, draw):
    run(sound, tmp_path, draw)


@pytest.mark.slow
@settings(max_examples=2000, **QUIET)
@given(draw=DRAWS)
def test_much_wrong_content_is_read_or_refused_with_a_way_out(sound, tmp_path, draw):
    run(sound, tmp_path, draw)
