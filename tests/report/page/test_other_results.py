"""Results of another kind, of an older version or damaged: one clear line, never a KeyError."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.cli import main as cli
from retina_codec.errors import RetinaCodecError
from retina_codec.report.page.checks import checks_of, verdict_of
from retina_codec.report.page.downloads import downloads
from retina_codec.report.page.numbers import numbers_of
from retina_codec.storage.trees import save_tree
from tests.figures.synthetic import synthetic_results
from tests.report.small_hypotheses import hypotheses


def of_images():
    """The least that contribute() and decompose() leave for images."""
    sample = np.arange(6)
    modes = xr.Dataset(
        {"loading": (("sample", "mode"), np.ones((6, 2)))}, coords={"sample": sample}
    )
    return xr.DataTree.from_dict(
        {
            "/responses": xr.Dataset(
                {"prediction": (("sample", "class"), np.ones((6, 3)))}, coords={"sample": sample}
            ),
            "/layers/layer1": xr.Dataset({"activation": (("sample", "channel"), np.ones((6, 4)))}),
            "/layers/layer1/modes": modes,
        }
    )


def last_line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def test_results_of_images_are_told_apart(tmp_path, capsys):
    save_tree(of_images(), tmp_path / "results.nc")
    assert cli.main(["report", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 2
    line = last_line(capsys)
    assert "the report shows results of analyze()" in line
    assert "sample" in line
    assert not (tmp_path / "page.html").exists()


def outcome(results):
    """Return the error of a page without pictures, or "" where there is a page."""
    try:
        numbers = numbers_of(results)
    except RetinaCodecError as error:
        return str(error)
    verdict_of(numbers, checks_of(numbers))
    downloads(results, numbers)
    return ""


def test_any_variable_may_be_missing():
    """Another version may lack any of them: the page does without it, or says which it is."""
    whole = synthetic_results(duration=5.0)
    nodes = {
        node.path: node.to_dataset(inherit=False)
        for node in whole.subtree
        if "conv2" not in node.path and "conv3" not in node.path
    }
    nodes["/pathways"] = nodes["/pathways"].sel(layer=["conv1"], other_layer=["conv1"])
    nodes["/hypotheses"] = hypotheses(1).assign_coords(cell=np.arange(5))
    tree = xr.DataTree.from_dict(nodes)
    errors = {}
    for node in tree.subtree:
        whole = node.to_dataset(inherit=False)
        for name in whole.variables:
            changed = tree.copy()
            changed[node.path].dataset = whole.drop_vars(name)
            errors[node.path, str(name)] = outcome(changed)
    said = {place: words for place, words in errors.items() if words}
    assert len(said) > 10
    assert len(said) < len(errors)
    assert [p for p, words in said.items() if p[1] not in words and "layer" not in words] == []


@pytest.mark.parametrize("path", ["responses", "layers/conv2/modes", "layers"])
def test_any_node_may_be_missing(results, path):
    nodes = {
        node.path: node.to_dataset(inherit=False)
        for node in results.subtree
        if not node.path.startswith(f"/{path}")
    }
    with pytest.raises(RetinaCodecError, match=r"must hold|hold no"):
        numbers_of(xr.DataTree.from_dict(nodes))


def test_a_variable_that_cannot_be_read_is_named(results, tmp_path, capsys):
    path = tmp_path / "results.nc"
    save_tree(results, path)
    whole = path.read_bytes()
    import h5py

    with h5py.File(path) as file:
        dataset = file["layers/conv2/modes/dictionary"]
        place = dataset.id.get_chunk_info(0).byte_offset
    path.write_bytes(whole[:place] + bytes(b ^ 0xFF for b in whole[place : place + 400])
                     + whole[place + 400 :])  # fmt: skip
    for arguments in (
        ["report", str(path), "--out", str(tmp_path / "page.html")],
        ["export", str(path), str(path), "--out", str(tmp_path / "out.nwb")],
    ):
        assert cli.main(arguments) == 2
        line = last_line(capsys)
        assert "/layers/conv2/modes/dictionary" in line
        assert "damaged" in line
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.nc"]
