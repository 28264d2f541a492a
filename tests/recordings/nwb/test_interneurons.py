import itertools

import numpy as np
import pytest
from pynwb.icephys import CurrentClampSeries

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.recordings.nwb.reader import read_nwb
from tests.recordings.nwb_files import ALL_TEST, RATE, write

pytestmark = pytest.mark.filterwarnings(ALL_TEST)

SAMPLING = 2000.0  # Hz


def potentials(count=2600, start=-0.05):
    time = start + np.arange(count) / SAMPLING
    return time, np.sin(7 * time) * 5 - 60


def clamp(nwbfile, name, data, **timing):
    device = nwbfile.devices.get("rig") or nwbfile.create_device("rig")
    electrode = nwbfile.icephys_electrodes.get("sharp") or nwbfile.create_icephys_electrode(
        name="sharp", description="a sharp electrode", device=device
    )
    nwbfile.add_acquisition(
        CurrentClampSeries(
            name=name,
            data=data,
            electrode=electrode,
            gain=1.0,
            conversion=1e-3,
            offset=0.01,
            **timing,
        )
    )


def test_potentials_are_averaged_within_bins(tmp_path):
    time, values = potentials()

    def fill(nwbfile):
        clamp(nwbfile, "bipolar_1", values, rate=SAMPLING, starting_time=-0.05)
        clamp(nwbfile, "amacrine_2", values[:1000][::-1].copy(), timestamps=time[:1000])

    path = write(tmp_path / "a.nwb", fill)
    node = read_nwb(path, interneuron_types={"bipolar_1": "bipolar"})["interneurons"].to_dataset()
    assert node["interneuron"].values.tolist() == ["amacrine_2", "bipolar_1"]
    assert node["type"].values.tolist() == ["unknown", "bipolar"]
    edges = np.arange(61) / RATE
    for name, (times, volts) in {
        "bipolar_1": (time, values),
        "amacrine_2": (time[:1000], values[:1000][::-1]),
    }.items():
        expected = []
        for first, last in itertools.pairwise(edges):
            inside = volts[(times >= first) & (times < last)]
            expected.append(inside.mean() * 1e-3 + 0.01 if inside.size else np.nan)
        np.testing.assert_allclose(node["potential"].sel(interneuron=name), expected, rtol=1e-9)
    assert node["potential"].attrs["units"] == "volts"
    assert np.isnan(node["potential"].sel(interneuron="amacrine_2")[-1])


def test_a_potential_outside_the_test_movie_is_left_out_with_a_word(tmp_path):
    _, values = potentials()

    def fill(nwbfile):
        clamp(nwbfile, "late", values, rate=SAMPLING, starting_time=100.0)

    path = write(tmp_path / "a.nwb", fill)
    with pytest.warns(RecordingWarning, match="late has no sample during the test movie; left out"):
        assert "interneurons" not in read_nwb(path).children


def test_times_that_do_not_fit(tmp_path):
    _, values = potentials()

    def fill(nwbfile):
        clamp(nwbfile, "cell", values, rate=SAMPLING, starting_time=0.0)

    def cut(file):
        series = file["acquisition/cell"]
        del series["starting_time"]
        series["timestamps"] = np.arange(5.0)

    with pytest.raises(RetinaCodecError, match="one time per sample; 5 for 2600"):
        read_nwb(write(tmp_path / "a.nwb", fill, mend=cut))
