"""Agreement between runs against numpy's correlations, image by image."""

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.layers.agreement import method_agreement


def run(seed, inputs=9, channels=6, scale=1.0):
    random = np.random.default_rng(seed)
    size = np.abs(random.normal(size=(inputs, 2, channels))) * [[-1], [1]] * scale
    layer = xr.Dataset(
        {
            "contribution": (("sample", "sign", "channel"), size),
            "activation": (("sample", "channel"), size.sum(1)),
        },
        coords={"sign": ["inhibitory", "excitatory"]},
    )
    return xr.DataTree.from_dict({"/layers/a": layer, "/layers/b": layer * 2 + 1})


def test_mean_over_images_of_numpys_correlation():
    runs = {"one": run(0), "two": run(1), "three": run(0, scale=-30.0)}
    found = method_agreement(runs, bootstraps=50)
    for layer in ("a", "b"):
        nets = {k: t[f"layers/{layer}"]["contribution"].sum("sign").values for k, t in runs.items()}
        for name, x in nets.items():
            for other, y in nets.items():
                expected = np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(x, y, strict=True)])
                seen = found["correlation"].sel(layer=layer, run=name, other=other)
                assert float(seen) == pytest.approx(expected)
    same = found.sel(layer="a", run="one", other="three")  # opposite sign, another unit
    assert float(same["correlation"]) == pytest.approx(-1)
    np.testing.assert_allclose(same["correlation_interval"], -1)
    low, high = found["correlation_interval"].sel(layer="a", run="one", other="two").values
    assert low < float(found["correlation"].sel(layer="a", run="one", other="two")) < high


def test_images_without_contributions_take_no_part_and_are_counted():
    one, two = run(0), run(1)
    silent = two.copy(deep=True)
    silent["layers/a"]["contribution"][3] = 0.0
    found = method_agreement({"one": one, "two": silent}, bootstraps=20).sel(run="one", other="two")
    keep = [0, 1, 2, 4, 5, 6, 7, 8]
    rest = {k: t.isel(sample=keep) for k, t in {"one": one, "two": two}.items()}
    expected = method_agreement(rest, bootstraps=20).sel(run="one", other="two")
    assert found["undefined"].values.tolist() == [1, 0]
    assert float(found["correlation"][0]) == pytest.approx(float(expected["correlation"][0]))


def test_runs_must_fit_together():
    with pytest.raises(rc.RetinaCodecError, match="two runs"):
        method_agreement({"one": run(0)})
    with pytest.raises(rc.RetinaCodecError, match="same inputs"):
        method_agreement({"one": run(0), "two": run(0, inputs=8)})
