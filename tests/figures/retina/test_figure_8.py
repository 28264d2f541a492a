import numpy as np
import pytest

from retina_codec import figures
from tests.figures.checks import assert_readable, images_of, visible_texts


@pytest.fixture(scope="module")
def page(drawn):
    return drawn("plot_figure_8")


def test_the_whole_page_is_readable(page):
    assert_readable(page)


def test_panels_stand_in_order_from_top_to_bottom(page):
    letters = {
        text.get_text(): text.get_window_extent().y0
        for text in visible_texts(page)
        if text.get_text() in "ABCD" and text.get_fontsize() == 14
    }
    assert sorted(letters, key=lambda letter: -letters[letter]) == list("ABCD")


def test_page_shows_what_the_single_panels_show(page, drawn):
    whole = images_of(page)
    for name in (
        "plot_network_and_target",
        "plot_contributions",
        "plot_pathways",
        "plot_fields",
    ):
        for image in images_of(drawn(name)):
            assert any(image.shape == i.shape and np.array_equal(image, i) for i in whole), name


def test_the_stretch_of_time_can_be_chosen(results):
    page = figures.plot_figure_8(results, 10.0, 12.0)
    assert any(axes.get_xlim() == pytest.approx((10.0, 12.01)) for axes in page.axes)
