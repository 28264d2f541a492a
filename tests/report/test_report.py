import re
from html.parser import HTMLParser

import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.report import summarize, write_report, writing
from retina_codec.report.writing import listed, number, percent, render


class Page(HTMLParser):
    """The page as a browser sees it: balanced tags, addresses, text, and images."""

    def __init__(self, html):
        super().__init__()
        self.open, self.addresses, self.images, self.words, self.ids = [], [], [], [], set()
        self.feed(html)
        self.text = re.sub(r"\s+", " ", "".join(self.words)).replace("\u00a0", " ")

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.addresses += [attrs[name] for name in ("src", "href", "action") if name in attrs]
        if "id" in attrs:
            self.ids.add(attrs["id"])
        if tag == "img":
            self.images.append(attrs)
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.words.append("\n" if tag in ("td", "th", "li", "p") else "")

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


@pytest.fixture(scope="module")
def html(results):
    return render(results)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the pictures out of pages whose words are tested."""
    names = ("quality", "target", "contributions", "pathways", "fields")
    monkeypatch.setattr(writing, "_figures", lambda _results: dict.fromkeys(names, "AAAA"))


def without(results, *parts, drop=()):
    """Copy results without some nodes, and without some variables of the responses."""
    nodes = {
        node.path: node.to_dataset().drop_vars(drop, errors="ignore")
        for node in results.subtree
        if not any(node.path.endswith(part) for part in parts)
    }
    return xr.DataTree.from_dict(nodes)


def test_page_is_whole_and_asks_for_nothing_outside(page, html):
    assert page.open == []
    for address in page.addresses:
        assert address.startswith(("data:image/png;base64,", "#")), address[:80]
        if address.startswith("#"):
            assert address[1:] in page.ids
    assert "@import" not in html
    assert "url(" not in html
    assert "<script" not in html
    assert len(page.images) == 5
    assert all(len(image["alt"]) > 20 for image in page.images)


def test_every_number_in_short_is_that_of_the_results(page, results):
    responses = results["responses"]
    mean, ceiling = (float(responses[name].mean()) for name in ("pearson", "noise_ceiling"))
    assert (
        f"mean Pearson r over cells of {mean:.2f}, {100 * mean / ceiling:.0f} % of what the repeats"
        in page.text
    )
    for name in ("conv1", "conv2"):
        modes = results[f"layers/{name}/modes"]
        assert f"layer {name[-1]}, {int(modes['live_modes'])} groups" in page.text
        assert f"with {float(modes['mean_active']):.1f} active at a time" in page.text
        agreement = float(results["pathways/type_agreement"].sel(layer=name))
        words = (
            f"by the modes of layer {name[-1]} (agreement with the recorded types {agreement:.2f}"
        )
        assert words in page.text
    between = float(results["pathways/agreement"].sel(layer="conv1", other_layer="conv2"))
    assert (
        f"The groupings by layer 1 and layer 2 agree with each other at {between:.2f}." in page.text
    )


def test_sentences_are_spaced_and_nothing_is_left_unfilled(page):
    words = page.text.split("Provenance session")[0]  # file names and settings follow
    assert not re.search(r"[a-z)²][.;,:][A-Z]", words)
    for trace in (r"\{\{", r"\{%", r"\bNone\b", r"\bnan\b", "Undefined", "DataArray"):
        assert not re.search(trace, words), trace


def test_page_says_what_is_not_known(page):
    assert "No null model and no p-value stands behind any of these numbers" in page.text
    assert "No nulls, no p-values." in page.text
    assert "This explains the network." in page.text
    assert "whether the difference exceeds chance was not tested" in page.text


def test_provenance_lists_every_attribute(page, results):
    for value in results.attrs.values():
        assert str(value) in page.text


@pytest.mark.usefixtures("undrawn")
def test_last_layer_is_described_only_where_it_is_explained(results):
    words = "The last layer has one channel per cell"
    assert words in render(results)
    first_two = without(results, "/conv3", "conv3/modes", "conv3/pathways")
    assert words not in render(first_two)


@pytest.mark.usefixtures("undrawn")
def test_modes_and_moments_are_described_as_they_are_ordered_and_drawn(results):
    text = Page(render(results)).text
    assert "Mode 0 explains most" not in text  # the order is that of summed contributions
    assert "Dotted lines: the numbered moments" in text


@pytest.mark.usefixtures("undrawn")
def test_text_from_the_file_cannot_become_markup(results):
    tree = results.copy()
    tree.attrs = results.attrs | {"session": "<script>alert(1)</script>", "species": "a & b"}
    html = render(tree)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "a &amp; b" in html


@pytest.mark.usefixtures("undrawn")
def test_a_check_that_fails_is_reported_as_failed(results):
    tree = results.copy(deep=True)
    error = tree["layers/conv3/target_change"] * 0.05
    tree["layers/conv3"]["completeness_error"] = error
    tree["layers/conv2/modes"]["r2"] = xr.DataArray(0.41)
    tree["responses"]["pearson"] = tree["responses/pearson"] * 0 + 0.2
    text = Page(render(tree)).text
    assert text.count("✗ not reached") == 3
    assert "median error at most 5.00 % of the change (layer 3)" in text
    assert "R² = 0.41 with 12 modes" in text


def test_results_without_rates_types_and_fields_still_make_a_page(results):
    tree = without(
        results, "/receptive_fields", drop=("rate", "pearson", "noise_ceiling", "type_agreement")
    )
    kind = ("cell", ["unknown"] * 16)
    tree["responses"] = tree["responses"].to_dataset().assign_coords(type=kind)
    page = Page(render(tree))
    assert "of 4 known types" not in page.text
    assert "16 cells, 60 s of stimulus" in page.text
    assert "how well the network predicts the cells is not known here" in page.text
    assert "Cell types are not known here" in page.text
    assert len(page.images) == 4
    assert "fields" not in page.ids


@pytest.mark.usefixtures("undrawn")
def test_report_is_written_whole_or_not_at_all(results, tmp_path):
    path = tmp_path / "report.html"
    write_report(results, path)
    first = path.read_text(encoding="utf-8")
    assert first.startswith("<!DOCTYPE html>")
    with pytest.raises(RetinaCodecError, match="overwrite"):
        write_report(results, path)
    broken = without(results, "/conv2/modes")
    with pytest.raises(RetinaCodecError, match=r"lack layers/conv2/modes"):
        write_report(broken, path, overwrite=True)
    assert path.read_text(encoding="utf-8") == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_report_must_be_html(results, tmp_path):
    with pytest.raises(RetinaCodecError, match=r"got '.*report\.pdf'"):
        write_report(results, tmp_path / "report.pdf")


def test_empty_tree_is_one_clear_error():
    with pytest.raises(RetinaCodecError, match="lack responses, layers"):
        summarize(xr.DataTree())


def test_numbers_are_written_as_people_write_them():
    assert number(0.8149) == "0.81"
    assert number(None) == number(float("nan")) == percent(None) == "–"
    assert percent(0.934) == "93\u00a0%"
    assert percent(0.0123) == "1.2\u00a0%"
    assert percent(0.00456) == "0.46\u00a0%"
    assert percent(0.00001) == "0.001\u00a0%"
    assert percent(0.0) == "0\u00a0%"
    assert percent(0.00142, 2) == "0.14\u00a0%"
    assert listed([]) == "none"
    assert listed(["a"]) == "a"
    assert listed(["a", 2, "c"]) == "a, 2 and c"
