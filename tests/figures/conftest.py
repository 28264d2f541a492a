from functools import cache

import pytest

from retina_codec import figures
from tests.figures.synthetic import synthetic_results


@pytest.fixture(scope="session")
def results():
    """Results like those of a retina: 16 cells of 4 types, 3 layers. Read only."""
    return synthetic_results()


@pytest.fixture(scope="session")
def drawn(results):
    """Draw a figure of the results once; a test looks at it and leaves it as it is."""
    return cache(lambda name: getattr(figures, name)(results))
