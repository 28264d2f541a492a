"""The authors' own code, where both are right: recorded values, equal to 1e-4 relative.

What differs on purpose is listed in docs/contributions.md.
"""

import json
from typing import Any

import numpy as np
import pytest

import retina_codec as rc
from tests.reference.authors import FILE, LAYERS, METHODS, STEPS, network, statistics, windows

RECORDED = json.loads(FILE.read_text(encoding="utf-8"))["values"]

OURS = {
    "int_grad": rc.methods.IntegratedGradients(STEPS, placement="uniform"),
    "act_grad": rc.methods.ActGrad(),
    "act_normgrad": rc.methods.ActNormGrad(),
}


def target(name: str) -> Any:
    if name == "Surprisal":
        return rc.targets.Surprisal(*statistics())
    return {
        "Sum": rc.targets.Sum(),
        "TopK": rc.targets.TopK(2, reselect=True),
        "Contrast": rc.targets.Contrast(reselect=True),
    }[name]


@pytest.mark.parametrize("name", ["Surprisal", "Sum", "TopK", "Contrast"])
@pytest.mark.parametrize("method", METHODS)
def test_agrees_with_the_authors_code(name: str, method: str) -> None:
    found = rc.contribute(
        network(), windows(), target=target(name), method=OURS[method], progress=False
    )
    for layer in LAYERS:
        theirs = np.array(RECORDED[f"{name}/{method}/{layer}"])  # (b, [negative, positive])
        theirs = theirs.reshape(len(theirs), 2, -1)
        ours = found[f"layers/{layer}/contribution"].values
        scale = np.abs(theirs).max()
        assert scale > 1e-3
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * scale / 10)
