import pytest

from retina_codec.report.page.checks import checks_of


def numbers(*, share=0.95, error=0.004, r2=0.9, live=9, rand=0.85):
    layer = {
        "completeness_median": error,
        "r2": r2,
        "r2_fit": 0.97,
        "live": live,
        "mean_active": 2.5,
        "held_out": 120,
    }
    return {
        "prediction": {"mean": 0.7, "ceiling": 0.75, "share": share},
        "layers": [{"name": "conv1", **layer}, {"name": "conv3", **layer}],
        "agreement": {"types": {"conv1": rand}, "between": []},
    }


@pytest.mark.parametrize(
    ("worse", "failed"),
    [
        ({}, []),
        ({"share": 0.89}, [0]),
        ({"error": 0.011}, [1]),
        ({"r2": 0.84}, [2, 3]),
        ({"live": 7}, [2, 3]),
        ({"rand": 0.79}, [4]),
    ],
)
def test_bars(worse, failed):
    found = checks_of(numbers(**worse))
    assert [i for i, check in enumerate(found) if not check["passed"]] == failed
    assert len(found) == 5
    assert all(check["what"].endswith("?") for check in found)


def test_values_are_those_of_the_numbers():
    values = [check["value"] for check in checks_of(numbers())]
    assert values[0] == "r = 0.70 of a possible 0.75 (95\u00a0%)"
    assert values[1] == "median error at most 0.40\u00a0% of the change (layer 1)"
    assert values[2] == "R² = 0.90 with 9 modes, 2.5 active at a time"
    assert values[4] == "adjusted Rand index 0.85"


def test_an_error_near_one_percent_is_written_so_that_the_verdict_can_be_read():
    assert "0.9981\u00a0%" in checks_of(numbers(error=0.009981))[1]["value"]
    assert "1.0021\u00a0%" in checks_of(numbers(error=0.010021))[1]["value"]


def test_checks_without_rates_or_types_are_left_out():
    bare = numbers() | {"prediction": None, "agreement": None}
    assert len(checks_of(bare)) == 3
    assert len(checks_of(numbers(share=None))) == 4
