import base64
import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.figures import registry
from retina_codec.report.page import page as writing
from retina_codec.report.page.cards import hypothesis_cards
from retina_codec.report.page.numbers import numbers_of
from retina_codec.report.page.page import render, write_report
from tests.report.small_hypotheses import channels, hypotheses, timed
from tests.report.small_scores import scored, scores


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
        if tag not in ("meta", "img", "br", "link", "input"):
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
    known = [registry.get(name)() for name in registry.list()]

    def captions(results, *, page, failed):  # noqa: ARG001
        return ((f, None) for f in known if f.needs(results) and (f.section or not page))

    monkeypatch.setattr(writing, "drawn_figures", captions)
    monkeypatch.setattr(writing, "_as_text", lambda _drawn: "AAAA")


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
        links = ("data:image/png;base64,", "data:text/csv;", "https://arxiv.org/abs/", "#")
        assert address.startswith(links), address[:80]
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
    assert "No number here was tested against a null model" in page.text
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
def test_a_pixel_size_that_nobody_knows_is_no_number(results):
    tree = results.copy()
    tree.attrs = results.attrs | {"pixel_size": float("nan")}
    assert "nan" not in re.sub(r"<[^>]*>", " ", render(tree).split("pixel size (µm)")[1])[:60]


@pytest.mark.usefixtures("undrawn")
def test_one_type_of_cells_is_not_compared_with_pathways(results):
    tree = results.copy(deep=True)
    typed = tree["responses"].to_dataset()
    one = ["OFF"] * typed.sizes["cell"]
    tree["responses"] = typed.assign_coords(type=("cell", one))
    known = tree["pathways"].to_dataset()
    tree["pathways"] = known.assign(type_agreement=known["type_agreement"] * np.nan)
    html = render(tree)
    assert "Cells of known type are all of one type" in html
    assert "match the cell types?" not in html


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
    with pytest.raises(RetinaCodecError, match=r"modes of \['conv1', 'conv2'.*run decompose"):
        write_report(broken, path, overwrite=True)
    assert path.read_text(encoding="utf-8") == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_report_must_be_html(results, tmp_path):
    with pytest.raises(RetinaCodecError, match=r"got '.*report\.pdf'"):
        write_report(results, tmp_path / "report.pdf")


def test_empty_tree_is_one_clear_error():
    with pytest.raises(RetinaCodecError, match="must hold the node responses"):
        numbers_of(xr.DataTree())


def claiming(results, claims):
    """Copy results with hypotheses about the first five of their cells, and what channels see."""
    tree = results.copy()
    tree["hypotheses"] = xr.DataTree(claims)
    tree["channels"] = xr.DataTree(channels())
    return tree


def test_words_are_defined_once_and_before_they_are_linked(page, html):
    for word in ("surprisal", "contribution", "mode", "loading", "pathway"):
        assert html.count(f"<dfn>{word}</dfn>") == 1
    assert "How to read this page" in page.text
    assert html.count("<li><b>", html.index('class="steps"'), html.index("</ol>")) == 4


def test_every_figure_says_what_to_look_for(results):
    html = render(scored(results, conv1=scores(1), conv2=scores(2)))
    assert html.count("<figcaption>") == html.count("<figcaption><b>Look for</b>") == 6
    assert len(Page(html).images) == 6


@pytest.mark.usefixtures("undrawn")
def test_cards_hold_every_hypothesis_and_its_numbers(results):
    html = render(claiming(results, hypotheses(13)))
    page = Page(html)
    assert page.open == []
    found = hypothesis_cards(hypotheses(13), channels())
    for card in found["cards"]:
        assert f"{card['rank']} {card['headline']}" in page.text
        assert f"{card['information']} nats per showing" in page.text
    for row in found["rest"]:
        assert row["headline"] in page.text
    assert html.count('<article class="card">') == 10
    assert "3 more" in page.text
    assert "fast bipolar: r = 0.87 with the channels, p ≤ 0.040; next amacrine (r = −0.25)" in (
        page.text
    )
    assert (
        "12.3 to 13.3 s of the recording, once; or the simple stimulus “OFF flash”, 12 times"
        in (page.text)
    )
    assert "13 predictions for an experiment" in page.text
    assert "not evidence" in page.text
    assert "80 % power at p < 0.05" in page.text
    for trace in (r"\bNone\b", r"\bnan\b", r"\binf\b"):
        assert not re.search(trace, page.text.split("Provenance session")[0]), trace


@pytest.mark.usefixtures("undrawn")
def test_pathways_have_one_number_on_the_whole_page(results):
    claims = hypotheses()
    labels = results["layers/conv1/pathways/pathway"].values
    claims["pathways"] = ("hypothesis", [str(labels[5]), ""])
    claims["modes"] = ("hypothesis", ["", ""])
    tree = claiming(results, claims)
    rows = numbers_of(tree)["pathways"]["conv1"]
    cell = str(results["layers/conv1/pathways/cell"].values[5])
    number = next(row["label"] for row in rows if cell in row["cells"])
    assert number == labels[5]
    assert [row["label"] for row in rows] == sorted(set(labels.tolist()))
    html = render(tree)
    assert f"pathway {number} of layer 1, through channels 3, 0" in Page(html).text
    table = html[html.index('<th class="n">pathway</th>') :]
    shown = re.findall(r'<tr><td class="n"[^>]*>(\d+)</td><td[^>]*>([^<]*)</td>', table)[
        : len(rows)
    ]
    assert shown == [(str(row["label"]), ", ".join(row["cells"])) for row in rows]


@pytest.mark.usefixtures("undrawn")
def test_events_are_told_where_hypotheses_are_about_events(results):
    text = Page(render(claiming(results, timed()))).text
    assert (
        "2.0 s in 2 events, the longest from 7.50 to 9.00 s; at other times the same cells" in text
    )
    assert "change by −0.4 Hz and +0.2 Hz" in text
    assert "the whole movie, twice; or 12.3 to 13.3 s" in text
    assert "while mode 2 of layer 1 acts" in text
    plain = Page(render(claiming(results, hypotheses()))).text
    assert "at other times" not in plain
    assert "its events" not in plain


@pytest.mark.usefixtures("undrawn")
def test_names_in_hypotheses_cannot_become_markup(results):
    evil = "<b onload=x>\"&'"
    claims = hypotheses().assign_coords(
        cell=[evil, *"bcde"], type=("cell", [evil, "off", "on", "off", "slow"])
    )
    for name in ("interneuron", "statement", "best_stimulus", "second_interneuron"):
        claims[name] = ("hypothesis", [evil, evil])
    html = render(claiming(results, claims))
    assert "<b onload" not in html
    assert html.count("&lt;b onload=x&gt;") >= 6
    assert Page(html).open == []


@pytest.mark.usefixtures("undrawn")
def test_missing_hypotheses_and_scores_are_said_to_be_missing(results):
    tree = results.copy()
    text = Page(render(tree)).text
    assert "Hypotheses for an experiment" not in text
    assert "They were not measured here" in text
    assert text.count("not measured") >= 4 * 3
    tree.attrs = results.attrs | {"no_hypotheses": "the movie is too short."}
    page = Page(render(tree))
    assert "There are none: the movie is too short. Limits" in page.text
    claims = hypotheses()
    claims["match"] = ("hypothesis", [np.nan, np.nan])
    claims["information"] = ("hypothesis", [np.nan, np.nan])
    assert "Information not measured nats" not in Page(render(claiming(results, claims))).text


@pytest.mark.usefixtures("undrawn")
def test_two_halves_stand_beside_chance(results):
    tree = results.copy()
    tree.attrs = results.attrs | {"no_halves": "they were not asked for"}
    assert "were not compared: they were not asked for." in Page(render(tree)).text
    quantity = ["modes", "pathways", "similarity"]
    tree["halves"] = xr.DataTree(
        xr.Dataset(
            {
                "agreement": (("layer", "quantity"), [[0.93, 0.11, np.nan]]),
                "null_high": (("layer", "quantity"), [[0.61, 0.2, np.nan]]),
            },
            {"layer": ["conv1"], "quantity": quantity},
            {"copies": 3, "samples": 480},
        )
    )
    text = Page(render(tree)).text
    assert "in each half of the split alone (480 times each)" in text
    assert "3 copies of the second half" in text
    assert "so few that p is at least 0.25" in text
    assert "layer 1 0.93 (chance 0.61) 0.11 (chance 0.20, not above) not measured" in text


@pytest.mark.usefixtures("undrawn")
def test_scores_stand_beside_what_shuffling_reaches(results):
    score = scores(1)
    text = Page(render(scored(results, conv1=score, conv2=scores(2)))).text
    true, other = float(score["r2"].sel(limit=3).mean()), float(score["baseline_r2"][-1].mean())
    assert f"(here, shuffled beside true: {other:.2f} beside {true:.2f} in layer 1, " in text
    assert "They were not measured here" not in text
    assert "of 2 starting points" in text
    assert "not measured" in text  # layer 3


@pytest.mark.usefixtures("undrawn")
def test_limits_say_which_numbers_have_a_null(results):
    tree = results.copy()
    node = tree["layers/conv1/pathways"].to_dataset()
    q = node["correlation"].copy(data=np.full(node["correlation"].shape, 0.2))
    q[0, 0] = 0.01
    q.attrs["null"] = "LinearShift"
    tree["layers/conv1/pathways"] = xr.DataTree(node.assign(q_value=q))
    text = Page(render(tree)).text
    assert "Correlations of modes with cells were tested against a null" in text
    assert "No nulls, no p-values." not in text
    assert "Nulls for some numbers only." in text


def with_prediction(results, pearson, **ceiling):
    tree = results.copy()
    node = tree["responses"].to_dataset(inherit=False)
    node["pearson"] = node["pearson"] * 0 + pearson
    tree["responses"] = xr.DataTree(node.drop_vars(ceiling))
    return tree


@pytest.mark.usefixtures("undrawn")
def test_the_verdict_comes_first_and_a_bad_network_is_called_bad(results):
    good = Page(render(results)).text
    first = good.index("In short")
    assert first < good.index("The network can be explained.") < good.index("Modes.")
    assert "All 6 checks are reached" in good or "checks are reached; not reached:" in good
    assert "Cells fall into" in good
    for pearson, words in (
        (0.41, "more than half of the variance"),
        (-0.02, "r over cells of −0.02"),
    ):
        html = render(with_prediction(results, pearson))
        text = Page(html).text
        assert "Do not explain this network." in text
        assert words in text
        assert "too bad to be explained" in text
        assert "Cells fall into" not in text
        assert "predictions for an experiment" not in text
        assert "not reached: “Does the network predict the cells?”" in text
        assert '<p class="verdict poor">' in html
    fair = Page(render(with_prediction(results, 0.7))).text
    assert "Read with care." in fair
    assert "Cells fall into" in fair


@pytest.mark.usefixtures("undrawn")
def test_contributions_that_do_not_add_up_are_not_believed(results):
    tree = results.copy(deep=True)
    tree["layers/conv2"]["completeness_error"] = tree["layers/conv2/target_change"] * 1.8
    text = Page(render(tree)).text
    assert "Do not believe these contributions." in text
    assert "Contributions miss 180 % of the change of F" in text


@pytest.mark.usefixtures("undrawn")
def test_what_was_tested_is_reported_whatever_was_found(results):
    tree = results.copy()
    fields = tree["receptive_fields"].to_dataset(inherit=False)
    q = np.linspace(0.15, 1.0, fields.sizes["cell"])
    q[-1] = np.nan
    for low, words in ((0.15, "in none is the false discovery rate below 5 %"), (0.01, "1 has a")):
        q[0] = low
        found = xr.DataArray(q.copy(), dims="cell", attrs={"null": "combinations shifted in time"})
        tree["receptive_fields"] = xr.DataTree(fields.assign(combination_q_value=found))
        text = Page(render(tree)).text
        assert words in text
        assert f"(smallest q = {low:.2f})" in text
        assert "15 cells; 1 had too few; null: combinations shifted in time" in text
        assert "exceeds chance was not tested" not in text
        assert f"tested in 15 cells: {'none are' if low > 0.05 else '1 is'} significant" in text


@pytest.mark.usefixtures("undrawn")
def test_untyped_cells_have_the_colours_of_their_pathways(results):
    tree = results.copy()
    responses = tree["responses"].to_dataset(inherit=False)
    unknown = ("cell", ["unknown"] * responses.sizes["cell"])
    tree["responses"] = xr.DataTree(responses.assign_coords(type=unknown))
    claims = hypotheses().assign_coords(cell=np.arange(5), type=("cell", ["unknown"] * 5))
    found = numbers_of(claiming(tree, claims))["hypotheses"]
    pathway = tree["layers/conv1/pathways/pathway"].values[:5]
    assert [name for name, _ in found["types"]] == [f"pathway {n}" for n in np.unique(pathway)]
    assert len({color for _, color in found["types"]}) == len(np.unique(pathway))
    assert "pathway 0" in render(claiming(tree, claims))


@pytest.mark.usefixtures("undrawn")
def test_a_page_can_be_cited_saved_and_looked_up(results):
    html = render(claiming(results, hypotheses()))
    page = Page(html)
    assert "https://arxiv.org/abs/2603.06557" in page.addresses
    assert "@inproceedings{melander2026contribution" in page.text
    for word in ("loading", "noise ceiling", "adjusted Rand index", "nats"):
        assert f"<dt>{word}</dt>" in html
    tables = dict(re.findall(r'download="([^"]+)" href="data:text/csv;[^,]*base64,([^"]+)"', html))
    cells = list(csv.DictReader(io.StringIO(base64.b64decode(tables["cells.csv"]).decode())))
    for name in ("conv1", "conv2"):
        labels = results[f"layers/{name}/pathways/pathway"].values
        assert [int(row[f"pathway_{name}"]) for row in cells] == labels.tolist()
    modes = list(csv.DictReader(io.StringIO(base64.b64decode(tables["modes.csv"]).decode())))
    live = sum(int(results[f"layers/{n}/modes"].sizes["mode"]) for n in results["layers"].children)
    assert len(modes) == live


@pytest.mark.usefixtures("undrawn")
def test_every_cell_of_a_table_has_its_heading_on_a_narrow_screen(results):
    html = render(scored(claiming(results, hypotheses(13)), conv1=scores(1)))
    for table in re.findall(r'<table class="[^"]*stack[^"]*">.*?</table>', html, re.DOTALL):
        rows = re.findall(r"<td[^>]*>", table)
        unnamed = [cell for cell in rows if "data-l=" not in cell and "head" not in cell]
        assert len(unnamed) <= table.count("<tr>"), unnamed[:3]
    assert html.count("<table") == html.count("stack") - html.count(".stack") + 1  # provenance
    style = html[html.index("<style>") : html.index("</style>")]
    assert "print-color-adjust: exact" in style
    assert "@media screen and (max-width: 700px)" in style


def test_the_rank_of_a_second_prediction_is_explained(results):  # noqa: ARG001
    claims = hypotheses(4)
    claims["silenced"] = ("hypothesis", ["conv1: 0", "conv1: 1", "conv1: 0", "conv1: 0"])
    claims["information"] = ("hypothesis", [8.0, 3.9, 6.9, 6.0])
    claims["match_p_value"] = ("hypothesis", [0.04, 0.08, 0.04, np.nan])
    cards = hypothesis_cards(claims)["cards"]
    assert [(card["above"], card["ranked_as"]) for card in cards] == [
        (0, "8.0"), (0, "3.9"), (1, "3.5"), (2, "2.0"),
    ]  # fmt: skip
    assert [card["p_value"] for card in cards] == ["≤ 0.040", "= 0.080", "≤ 0.040", "not measured"]
    claims.attrs["shifts"] = 199
    assert hypothesis_cards(claims)["cards"][0]["p_value"] == "= 0.040"
