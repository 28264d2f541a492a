import numpy as np
import pytest

from retina_codec.report.page.checks import CHEAP, FULL, trust_numbers
from tests.report.small_scores import scored, scores


def values(found, words):
    (row,) = [row for row in found["rows"] if row["words"] == words]
    return row["values"]


@pytest.fixture(scope="module")
def found(results):
    return trust_numbers(scored(results, conv1=scores(1), conv2=scores(2, network=False)))


def test_scores_of_every_decomposition_are_always_there(results, found):
    for some in (trust_numbers(results), found):
        assert some["layers"] == ["conv1", "conv2", "conv3"]
        for name, words, _ in CHEAP[:2]:
            modes = [results[f"layers/{layer}/modes/{name}"] for layer in some["layers"]]
            assert values(some, words) == [f"{float(value):.2f}" for value in modes]


def test_full_scores_are_means_over_seeds_pairs_and_modes(found):
    score = scores(1)
    means = {
        "mode_match": score["mode_match"].mean(),
        "insertion_gain": score["insertion_gain"].mean(),
        "r2_shuffled_data": score["baseline_r2"][-1].mean(),
        "r2_raw_channels": score["baseline_r2"][3].mean(),
        "noise_r2": score["noise_r2"],
    }
    for name, words, _ in FULL:
        if name in means:
            assert values(found, words)[0] == f"{float(means[name]):.2f}"
    assert found["seeds"] == 2
    assert [pair[0] for pair in found["shuffled"]] == ["conv1", "conv2"]
    np.testing.assert_allclose(
        found["shuffled"][0][1:],
        [score["r2"].sel(limit=3).mean(), score["baseline_r2"][-1].mean()],
    )


def test_what_was_not_scored_is_said_to_be_so(results, found):
    for name, words, _ in FULL:
        row = values(found, words)
        assert row[2] == "not measured"
        asked = name in ("insertion_gain", "deletion_gain", "effect", "noise_r2", "noise_match")
        assert (row[1] == "not measured") is asked
    unscored = trust_numbers(results)
    assert (unscored["scored"], unscored["shuffled"], unscored["seeds"]) == (False, [], None)
    missing = [row for row in unscored["rows"] if row["missing"]]
    assert {value for row in missing for value in row["values"]} == {"not measured"}
    assert sum(row["decisive"] for row in missing) == 4


def test_r2_is_never_among_the_decisive_scores(found):
    decisive = [row["words"] for row in found["rows"] if row["decisive"]]
    assert len(decisive) == 4
    assert not any("R²" in words for words in decisive)
