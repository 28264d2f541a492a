"""How far each cell can be trusted: how its counts vary, and how much of it the network explains.

Why this file exists: a change in a cell that the network does not predict is worth little, and one
in a noisy cell is hard to see. Both are measured on repeats.
"""

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.power import count_variability
from retina_codec.analysis.prediction import agreement
from retina_codec.networks.maheswaranathan import RetinaCNN

__all__ = ["cell_certainty"]

Floats = npt.NDArray[np.floating]


def cell_certainty(
    network: RetinaCNN, modes: xr.DataTree, part: xr.DataTree, block: float
) -> tuple[Floats, Floats]:
    """Measure variability F of the counts and explained part q of every cell.

    Parameters
    ----------
    network : RetinaCNN
    modes : xr.DataTree
        With ``/responses/prediction`` (Hz) for q.
    part : xr.DataTree
        Split of the recording, with ``/repeats`` for both.
    block : float
        s, see `count_variability`.

    Returns
    -------
    array (cell,)
        F; 1 where not known.
    array (cell,)
        ``q = min(1, max(0, r / ceiling))²``; 1 without repeats or prediction, 0 for a cell whose
        ceiling is not defined.
    """
    count = len(network.cells)
    variability, quality = np.ones(count), np.ones(count)
    if "repeats" not in part.children or part.children["repeats"].sizes["repeat"] < 2:
        return variability, quality
    repeats = part.children["repeats"].to_dataset()["rate"].sel(cell=list(network.cells))
    found = count_variability(repeats, block, network.frame_rate).values
    variability = np.where(found > 0, found, 1.0)  # without spikes nothing speaks against Poisson
    responses = modes["responses"].to_dataset() if "responses" in modes.children else xr.Dataset()
    if "prediction" in responses:
        fit = agreement(responses["prediction"], part).sel(cell=list(network.cells))
        ratio = (fit["pearson"] / fit["noise_ceiling"]).values
        # a cell whose ceiling is not defined counts for nothing
        quality = np.where(np.isfinite(ratio), np.clip(ratio, 0.0, 1.0) ** 2, 0.0)
    return variability, quality
