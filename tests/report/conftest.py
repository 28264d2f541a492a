import pytest

from tests.figures.synthetic import synthetic_results


@pytest.fixture(scope="session")
def results():
    """Results like those of a retina: 16 cells of 4 types, 3 layers. Read only."""
    return synthetic_results()
