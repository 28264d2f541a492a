"""The shipped network does what its card says, on movies that it never saw."""

import re

import numpy as np
import pytest

import retina_codec as rc
from retina_codec.analysis.pathways.prediction import prediction_quality
from retina_codec.networks.checkpoints import network_folder

FOLDER = network_folder("insilico")
DEMO_MOVIE, OTHER_MOVIES = 1, (2, 3)


@pytest.fixture(scope="module")
def network():
    return rc.load_network(FOLDER)


def test_it_models_the_cells_of_the_simulated_retina(network):
    recording, circuit = rc.simulate_retina(
        0, stimulus_seed=7, train_duration=0, test_duration=12, repeats=10, progress=False
    )
    assert network.cells == circuit.cell
    assert network.cell_types == circuit.cell_type
    places = network.readout.locations.numpy() + network.margin
    assert np.abs(places - np.array(circuit.center)).max() <= 1.0
    quality = prediction_quality(network, recording, progress=False)
    # 12 s are 12 scenes, too few for the 90 % that a minute must reach
    assert float((quality["pearson"] / quality["noise_ceiling"]).mean()) > 0.85
    assert float(quality["pearson_noise_free"].mean()) > 0.85


def test_the_card_states_the_share_of_the_ceiling_and_the_training():
    card = (FOLDER / "card.md").read_text(encoding="utf-8")
    share = re.search(r"mean of r / ceiling = ([\d.]+) %", card)
    assert share is not None
    assert float(share[1]) >= 90
    for part in ("minutes", "validation loss per epoch", "## Doubts", "| 15 | object motion |"):
        assert part in card


@pytest.mark.slow
@pytest.mark.parametrize("movie", [DEMO_MOVIE, *OTHER_MOVIES])
def test_the_whole_road_recovers_the_circuit(network, movie):
    """One minute per movie: prediction, completeness, modes, pathways."""
    recording, _ = rc.simulate_retina(
        0, stimulus_seed=movie, train_duration=0, test_duration=60, progress=False
    )
    results = rc.analyze(recording, network, progress=False)
    responses = results["responses"].to_dataset()
    assert float((responses["pearson"] / responses["noise_ceiling"]).mean()) >= 0.9
    assert float(rc.completeness(results)["median"].max()) < 0.01
    for layer in ("conv1", "conv2"):
        modes = results[f"layers/{layer}/modes"]
        assert float(modes["r2"]) >= 0.85
        assert int(modes["live_modes"]) >= 8
    # Whether the silhouette takes three or four groups in layer 1 hangs on rounding in some movies
    # (0.50 against 0.49); that four groups are the four types does not.
    four = rc.find_pathways(results, clusters=[4])
    chosen = [four] if movie != DEMO_MOVIE else [four, results]
    for found in chosen:
        for layer in ("conv1", "conv2"):
            assert float(found["pathways/type_agreement"].sel(layer=layer)) >= 0.8
