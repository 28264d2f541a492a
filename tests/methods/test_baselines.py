"""Baselines of every kind, as batches of one input."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method
from retina_codec.methods.baselines import (
    check_baseline,
    differ_by_input,
    prepare_baseline,
    resolve_baselines,
    settle_baseline,
)
from retina_codec.methods.gradients import ActGrad, InputGrad
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.networks.embeddings import Entry, Place
from retina_codec.networks.retina.prediction import open_windows
from retina_codec.targets.base import Unit
from tests.small import small_network, small_recording

INPUTS = torch.zeros(4, 2, 3)
IMAGE = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        (0.0, [np.zeros((2, 3))]),
        (2, [np.full((2, 3), 2.0)]),
        (IMAGE, [IMAGE]),
        (torch.tensor(IMAGE), [IMAGE]),
        (xr.DataArray(IMAGE, dims=("y", "x")), [IMAGE]),
        ([1.0, IMAGE], [np.ones((2, 3)), IMAGE]),
    ],
)
def test_every_kind_becomes_one_input(baseline: Any, expected: list[np.ndarray]) -> None:
    check_baseline(baseline)
    found = resolve_baselines(baseline, INPUTS)
    assert len(found) == len(expected)
    for one, values in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        np.testing.assert_array_equal(one, values[None].astype("f4"))


def test_the_mean_is_put_in_only_when_asked_for() -> None:
    calls = []

    def mean() -> torch.Tensor:
        calls.append(1)
        return torch.full((2, 3), 5.0)

    assert prepare_baseline(0.5, mean) == 0.5
    assert not calls
    prepared = prepare_baseline(["mean", 1.0, "mean"], mean)
    assert len(calls) == 1
    found = resolve_baselines(prepared, INPUTS)
    assert [float(one.mean()) for one in found] == [5.0, 1.0, 5.0]


def test_inputs_by_name_have_baselines_by_name_and_numbers_stay() -> None:
    inputs = {"pixels": torch.ones(3, 2), "mask": torch.tensor([[1], [0], [1]])}
    (found,) = resolve_baselines({"pixels": 4.0}, inputs)
    # Token numbers and masks have no path: each input keeps its own.
    assert found["mask"].tolist() == [[1], [0], [1]]
    assert found["pixels"].tolist() == [[4.0, 4.0]] * 3
    (same,) = resolve_baselines(4.0, inputs)
    assert torch.equal(same["pixels"], found["pixels"])
    with pytest.raises(
        RetinaCodecError, match=r"inputs that paths change, \['pixels'\]; got \['depth'\]"
    ):
        resolve_baselines({"depth": 0.0}, inputs)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (float("nan"), "must be finite"),
        ([0.0, float("inf")], "must be finite"),
        ({"pixels": float("inf")}, "must be finite"),
        (
            "median",
            "'auto', 'mean', 'mean embedding' or 'mean .* got 'median'. Did you mean 'mean'",
        ),
        ("mean-embeding", "Did you mean 'mean embedding'"),
        (["grey"], "got 'grey'. Use 0.0"),
        ([], "at least one"),
        (object(), "got object"),
    ],
)
def test_bad_baselines_are_refused_early(baseline: Any, message: str) -> None:
    with pytest.raises(RetinaCodecError, match=message):
        check_baseline(baseline)


def test_shapes_must_be_those_of_one_input() -> None:
    with pytest.raises(RetinaCodecError, match=r"shape \(2, 3\); got \(3, 2\)"):
        resolve_baselines(IMAGE.T, INPUTS)
    with pytest.raises(RetinaCodecError, match="known only within contribute"):
        resolve_baselines("mean", INPUTS)


WORDS = Entry((Place("words"),))


@pytest.mark.parametrize(
    ("baseline", "words", "others"),
    [
        ("auto", "mean embedding after first word", 0.0),
        (0.0, 0.0, 0.0),
        ("mean", "mean", "mean"),
        (
            ["auto", "mean", 1.0],
            ["mean embedding after first word", "mean", 1.0],
            [0.0, "mean", 1.0],
        ),
    ],
)
def test_auto_is_chosen_by_where_paths_lead(baseline: Any, words: Any, others: Any) -> None:
    check_baseline(baseline)
    assert settle_baseline(baseline, WORDS) == words
    assert settle_baseline(baseline, Entry()) == others
    if "auto" not in np.atleast_1d(np.array(baseline, object)):
        assert settle_baseline(baseline, WORDS) is baseline


def test_auto_without_embeddings_is_zero_also_unprepared() -> None:
    (found,) = resolve_baselines("auto", INPUTS + 1)
    assert torch.equal(found, torch.zeros(1, 2, 3))
    with pytest.raises(RetinaCodecError, match="'auto' is known only within contribute"):
        resolve_baselines("auto", {"embedding of words": torch.ones(1, 2, 3)})


def test_a_row_stands_for_every_word_and_for_no_pixel() -> None:
    embeddings = {"embedding of words": torch.ones(4, 5, 3), "ids": torch.ones(4, 5).long()}
    row = np.array([1.0, 2.0, 3.0])
    (found,) = resolve_baselines({"embedding of words": row}, embeddings)
    assert found["embedding of words"].tolist() == [[row.tolist()] * 5] * 4
    with pytest.raises(RetinaCodecError, match=r"shape \(5, 3\); got \(3,\)"):
        resolve_baselines(row, torch.ones(4, 5, 3))


def test_a_function_gives_every_input_its_own_and_cannot_change_it() -> None:
    inputs = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)).half()
    before = inputs.clone()

    def flat(image: np.ndarray) -> np.ndarray:
        mean = image.mean()
        image[:] = mean
        return image

    check_baseline(flat)
    (found,) = resolve_baselines(flat, inputs)
    expected = before.float().mean((1, 2), keepdim=True).expand(4, 2, 3)
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=1e-3)  # half precision
    assert torch.equal(inputs, before)
    named = {"pixels": inputs, "ids": torch.arange(8).view(4, 2)}
    (by_name,) = resolve_baselines({"pixels": flat}, named)
    assert torch.equal(by_name["pixels"], found)
    assert torch.equal(by_name["ids"], named["ids"])
    assert [differ_by_input(one) for one in (flat, {"a": flat}, [0.0, flat], 0.0, "mean")] == [
        True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda image: image[0], r"shape of its input, \(2, 3\); got \(3,\)"),
        (lambda image: image / 0 * 0, r"got \(2, 3\), not finite"),
        (lambda image: str(image.shape), "got str"),
    ],
)
def test_what_a_function_returns_is_checked(function: Any, message: str) -> None:
    with (
        np.errstate(invalid="ignore", divide="ignore"),
        pytest.raises(RetinaCodecError, match=message),
    ):
        resolve_baselines(function, INPUTS + 1)


def blurred(image: np.ndarray) -> np.ndarray:
    """Half of the image and half of its mean: each image has its own."""
    half: np.ndarray = image / 2 + image.mean() / 2
    return half


IMAGES = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def explain_images(method: Method, store: Any = None, images: Any = IMAGES) -> xr.DataTree:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 2), nn.Flatten(), nn.Linear(18, 4)
    )
    found: xr.DataTree = contribute(
        network, images, target=Unit(1), method=method, layers=["0", "2"], store=store,
        progress=False, dtype=torch.float64,
    )  # fmt: skip
    return found


@pytest.mark.parametrize(
    "kind",
    [
        lambda baseline: IntegratedGradients(4, baseline=baseline),
        lambda baseline: IntegratedGradients(4, baseline=baseline, tolerance=1e-3),
        lambda baseline: IntegratedGradients(4, path="hidden", baseline=baseline),
        lambda baseline: IntegratedGradients(4, quadrature="gauss-legendre", baseline=baseline),
        lambda baseline: InputGrad(baseline=baseline),
        lambda baseline: ActGrad(baseline=baseline),
        lambda baseline: IntegratedGradients(4, baseline=[baseline, 0.3]),
    ],
)
def test_a_function_is_the_baseline_of_each_image_alone(kind: Any) -> None:
    found = explain_images(kind(blurred))
    assert "blurred" in found.attrs["baseline"]
    for number, image in enumerate(IMAGES):
        alone = explain_images(kind(blurred(image.double().numpy())), images=IMAGES[[number]])
        for name in ("layers/0", "layers/2"):
            one = alone[name]["contribution"][0].values
            np.testing.assert_allclose(found[name]["contribution"][number], one, rtol=1e-8)
            assert np.abs(one).max() > 1e-3


def test_a_store_knows_its_function(tmp_path: Any) -> None:
    store = tmp_path / "run.zarr"
    first = explain_images(IntegratedGradients(4, baseline=blurred), store)
    again = explain_images(IntegratedGradients(4, baseline=blurred), store)
    np.testing.assert_array_equal(
        again["layers/0"]["contribution"], first["layers/0"]["contribution"]
    )

    def other(image: np.ndarray) -> np.ndarray:
        return image / 3

    other.__qualname__ = blurred.__qualname__
    with pytest.raises(RetinaCodecError, match="values of method"):
        explain_images(IntegratedGradients(4, baseline=other), store)


def test_auto_of_images_is_zero_and_is_so_named(tmp_path: Any) -> None:
    store = tmp_path / "run.zarr"
    found = explain_images(IntegratedGradients(4), store)
    assert found.attrs["baseline"] == 0.0
    zero = explain_images(IntegratedGradients(4, baseline=0.0), store)  # the same run
    np.testing.assert_array_equal(
        found["layers/0"]["contribution"], zero["layers/0"]["contribution"]
    )
    with pytest.raises(RetinaCodecError, match="'mean embedding' is of words by number"):
        explain_images(IntegratedGradients(4, baseline="mean embedding"))


def test_a_function_of_windows_that_follow_each_other() -> None:
    """Baselines of windows are no movie, also where the windows are one."""
    network, inputs = small_network(), small_recording(bins=40).children["test"]
    options: dict[str, Any] = {"target": Unit("a"), "layers": ["conv1", "conv2"], "progress": False}
    scale: dict[str, Any] = {
        "baseline": lambda window: window * np.linspace(0, 1, len(window))[:, None, None]
    }
    some = next(iter(open_windows(network, inputs)[1].batches(5, torch.device("cpu"))))[1]
    found, windows = (
        contribute(network, given, method=IntegratedGradients(6, **scale), **options)
        for given in (inputs, some)
    )
    for name in options["layers"]:
        one = windows[f"layers/{name}"]["contribution"].values
        np.testing.assert_allclose(
            found[f"layers/{name}"]["contribution"][: len(one)], one, rtol=1e-3, atol=1e-5
        )
