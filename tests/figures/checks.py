"""What every figure must satisfy: nothing cut off, no text over other text, its data drawn."""

from functools import lru_cache
from itertools import combinations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


@lru_cache(maxsize=16)
def visible_texts(figure: Figure) -> list[Text]:
    """Return the texts a reader sees, without tick labels that lie outside their axes' limits."""
    FigureCanvasAgg(figure).draw()
    hidden = set()
    for axes in figure.findobj(lambda artist: hasattr(artist, "get_xticklabels")):
        for axis in (axes.xaxis, axes.yaxis):
            drawn = set() if not axes.axison else set(axis._update_ticks())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if tick not in drawn:
                    hidden |= {tick.label1, tick.label2}
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in hidden
    ]


def assert_readable(figure: Figure, smallest: float = 7.0) -> None:
    """No text leaves the canvas, covers other text, or is smaller than ``smallest`` points."""
    texts = visible_texts(figure)
    assert texts
    canvas = figure.bbox
    boxes = [text.get_window_extent() for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        assert text.get_fontsize() >= smallest, f"too small: {text.get_text()!r}"
        inside = (box.x0 >= -1, box.y0 >= -1, box.x1 <= canvas.x1 + 1, box.y1 <= canvas.y1 + 1)
        assert all(inside), f"leaves the canvas: {text.get_text()!r} {box}"
    for (a, box), (b, other) in combinations(zip(texts, boxes, strict=True), 2):
        width = min(box.x1, other.x1) - max(box.x0, other.x0)
        height = min(box.y1, other.y1) - max(box.y0, other.y0)
        assert not (width > 1 and height > 1), f"{a.get_text()!r} covers {b.get_text()!r}"


def words_of(figure: Figure) -> str:
    """Return all visible text of a figure, joined."""
    return " | ".join(text.get_text() for text in visible_texts(figure))


def images_of(figure: Figure) -> list[np.ndarray]:
    """Return the arrays of all images in a figure, in the order of drawing."""
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


def has_image(figure: Figure, values: np.ndarray) -> bool:
    """Say whether one of the images shows exactly these values."""
    return any(
        image.shape == values.shape and np.array_equal(image, values) for image in images_of(figure)
    )
