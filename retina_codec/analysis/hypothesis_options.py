"""Are the options of `hypothesize` possible? One check before any long work."""

import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["check_options"]


def check_options(
    recording: xr.DataTree,
    *,
    split: str,
    threshold: float,
    significance: float,
    bootstraps: int,
    event_share: float,
    scope: str,
    when: str,
) -> None:
    """Check the options of `hypothesize`; one line says what must hold.

    Raises
    ------
    RetinaCodecError
        If the split is missing or an option is out of range.
    """
    if split not in recording.children:
        raise RetinaCodecError(
            f"split must be a part of the recording; got {split=}. "
            f"This recording has {sorted(set(recording.children) & {'train', 'test'})}."
        )
    if threshold < 0 or not 0 < significance < 1 or bootstraps < 2:
        raise RetinaCodecError(
            "threshold must be at least 0, significance between 0 and 1, bootstraps at least 2; "
            f"got {threshold=}, {significance=}, {bootstraps=}."
        )
    for name, value, known in (
        ("scope", scope, ("interneuron", "mode")),
        ("when", when, ("active", "always")),
    ):
        if value not in known:
            raise RetinaCodecError(f"{name} must be {known[0]!r} or {known[1]!r}; got {value!r}.")
    if not 0 < event_share < 1:
        raise RetinaCodecError(f"event_share must lie in (0, 1); got {event_share}. Use 0.1.")
