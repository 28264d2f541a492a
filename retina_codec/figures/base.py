"""The contract of a figure of results, and the registry of all of them.

The report's page and the folder figures/ of the command line show every registered figure.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.registry import Registry

if TYPE_CHECKING:
    from matplotlib import figure as drawing

__all__ = ["Figure", "drawn_figures", "registry"]


class Figure(ABC):
    """A figure of results: one class in one file, shown wherever results are shown.

    A subclass is registered by its ``name`` when its module is imported. A package that is
    installed beside this one names its class in the entry-point group ``retina_codec.figures``.

    Must
        - set ``name``: letters, digits and ``_``; the file is ``figures/<name>.png``;
        - set ``title``: what the picture shows in a few words, for readers who cannot see it;
        - set ``caption``: what each panel, colour and line means, with units;
        - implement ``draw``, which leaves the results as they are and writes no file.

    Should
        - implement ``needs``, if some results lack what is drawn;
        - set ``look_for``: what a reader should look at, the rest of "Look for ...";
        - set ``section``: the ``id`` of the section of the page in which it stands ("read",
          "checks", "contributions", "trust", "pathways", "fields"); on pages without that section
          it stands under "Further figures". "" keeps it off the page;
        - implement ``caption_of``, if the caption holds numbers of the results.

    Examples
    --------
    ::

        class TargetOverTime(rc.figures.Figure):
            name = "target_over_time"
            title = "The target over time"
            caption = "F (nats) at every response time (s)."

            def draw(self, results):
                figure = matplotlib.figure.Figure()
                responses = results["responses"]
                figure.subplots().plot(responses["time"], responses["target"])
                return figure
    """

    name: ClassVar[str]
    title: ClassVar[str]
    caption: ClassVar[str]
    look_for: ClassVar[str] = ""
    section: ClassVar[str] = "further"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in vars(cls):
            registry.register(cls.name, cls)

    def needs(self, results: xr.DataTree) -> bool:  # noqa: ARG002  (for subclasses)
        """Return whether these results hold what the figure draws."""
        return True

    def caption_of(self, results: xr.DataTree) -> str:  # noqa: ARG002  (for subclasses)
        """Return the caption, with numbers of these results where it holds some."""
        return self.caption

    @abstractmethod
    def draw(self, results: xr.DataTree) -> "drawing.Figure":
        """Draw the figure.

        Parameters
        ----------
        results : xr.DataTree
            Results of ``analyze`` for which ``needs`` is true.

        Returns
        -------
        matplotlib.figure.Figure
        """


def _check(name: str, item: type[Figure]) -> None:
    missing = [part for part in ("name", "title", "caption") if not getattr(item, part, "")]
    if missing or not name.isidentifier() or name != item.name or "draw" not in dir(item):
        raise RetinaCodecError(
            "a figure must be a class with name (letters, digits and _), title, caption and draw; "
            f"{name!r} lacks {', '.join(missing) or 'a fitting name'}. Set it on the class."
        )


_RETINA = "retina_codec.figures.retina"

registry: Registry[type[Figure]] = Registry(
    "figure",
    "retina_codec.figures",
    {
        "figure_8": f"{_RETINA}.figure_8:Figure8",
        "network_and_target": f"{_RETINA}.network:NetworkAndTarget",
        "contribution_heat_maps": f"{_RETINA}.contributions:Contributions",
        "mode_matrices": f"{_RETINA}.pathways:Pathways",
        "irf_combinations": f"{_RETINA}.fields:Fields",
        "quality_checks": f"{_RETINA}.quality:Quality",
        "scorecard": f"{_RETINA}.scores:Scores",
    },
    _check,
)


def drawn_figures(
    results: xr.DataTree, *, page: bool = False, failed: dict[str, str] | None = None
) -> Iterator[tuple[Figure, "drawing.Figure"]]:
    """Draw every registered figure that these results can fill, one after the other.

    Parameters
    ----------
    results : xr.DataTree
        Results of ``analyze``.
    page : bool
        Leave out those that do not stand on the report's page.
    failed : dict, optional
        Gets why a figure cannot be drawn, by name, and the others are drawn. Without it such a
        figure is an error.

    Yields
    ------
    figure : Figure
    drawn : matplotlib.figure.Figure
        Closed before the next one is drawn.

    Raises
    ------
    RetinaCodecError
        If a figure of another package cannot be drawn, without ``failed``.
    """
    import matplotlib.pyplot as plt

    for name in registry.list():
        figure = registry.get(name)()
        if page and not figure.section:
            continue
        try:
            drawn = figure.draw(results) if figure.needs(results) else None
        except Exception as error:
            if failed is not None:
                words = " ".join(str(error).split())
                failed[name] = f"{type(error).__name__}: {words}" if words else repr(error)
                continue
            if type(figure).__module__.startswith("retina_codec."):
                raise
            raise RetinaCodecError(
                f"the figure {name!r} of {type(figure).__module__} cannot be drawn: {error!r}. "
                "Correct it, or do without the package that provides it."
            ) from error
        if drawn is not None:
            yield figure, drawn
            plt.close(drawn)
