"""Cells, receptive field centres and blocks of the experiments of Maheswaranathan et al. 2023.

From the authors' code. Cells are rows of the response arrays, from 0; centres are in their order.
"""

__all__ = ["NUM_BLOCKS", "PUBLISHED_CELLS", "PUBLISHED_CENTERS"]

PUBLISHED_CELLS: dict[str, tuple[int, ...]] = {
    "15-10-07": (0, 1, 2, 3, 4),
    "15-11-21a": (6, 10, 12, 13),
    "15-11-21b": (0, 1, 3, 5, 8, 9, 13, 14, 16, 17, 18, 20, 21, 22, 23, 24, 25),
    "16-01-07": (0, 2, 7, 10, 11, 12, 31),
    "16-01-08": (0, 3, 7, 9, 11),
    "16-05-31": (2, 3, 4, 14, 16, 18, 20, 25, 27),
}
# (row, column) of a frame of 50 × 50 px, one for each of the cells above
PUBLISHED_CENTERS: dict[str, tuple[tuple[int, int], ...]] = {
    "15-10-07": ((21, 18), (24, 20), (22, 18), (27, 18), (31, 20)),
    "15-11-21a": ((37, 3), (39, 6), (20, 15), (41, 2)),
    "15-11-21b": (
        *((16, 13), (20, 12), (19, 7), (19, 3), (21, 7), (22, 6), (21, 7), (25, 3), (23, 6)),
        *((26, 4), (24, 6), (26, 7), (27, 9), (26, 9), (27, 11), (26, 13), (24, 10)),
    ),
}
# the train movie is this many pieces, joined
NUM_BLOCKS: dict[str, int] = {
    "15-10-07": 6,
    "15-11-21a": 6,
    "15-11-21b": 6,
    "16-01-07": 3,
    "16-01-08": 3,
    "arbfilt": 1,
}
