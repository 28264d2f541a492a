"""The end of a script: what is computed, when, and what is printed and kept."""

import argparse
import csv

import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.paper.claims import claims_table, judge
from retina_codec.paper.script import run_figure, run_script
from retina_codec.storage.trees import save_tree


def claims_of(tree):
    found = tree["number"].values
    return [judge("positive", "Fig. 1", "It is.", found, (found - 0.1, found + 0.1), low=0)]


def draw(options, tree):
    path = options.out / "picture.png"
    path.write_text(str(float(tree["number"])))
    return path


def computing(value):
    def compute(options, path):
        del options
        save_tree(xr.DataTree(xr.Dataset({"number": value})), path, overwrite=True)

    return compute


def refuse(*_):
    pytest.fail("computed again")


def of(folder, reuse=False):
    return argparse.Namespace(out=folder, reuse=reuse)


def test_results_are_computed_judged_and_drawn(tmp_path):
    folder = tmp_path / "made" / "here"
    text = run_figure("one", of(folder), computing(1.0), claims_of, draw)
    table, picture = claims_table(claims_of({"number": xr.DataArray(1.0)})), folder / "picture.png"
    assert text == f"{table}\n{picture}"
    assert picture.read_text() == "1.0"
    with open(folder / "one_claims.csv", encoding="utf-8") as file:
        assert [(row["name"], row["holds"]) for row in csv.DictReader(file)] == [
            ("positive", "yes")
        ]


def test_only_what_was_asked_for_is_reused(tmp_path):
    run_figure("one", of(tmp_path), computing(1.0), claims_of, draw)
    again = run_figure("one", of(tmp_path, reuse=True), refuse, claims_of, draw)
    assert " yes" in again
    other = run_figure("two", of(tmp_path, reuse=True), computing(-1.0), claims_of, draw)
    assert " no" in other  # nothing to reuse under this name
    assert " no" in run_figure("one", of(tmp_path), computing(-1.0), claims_of, draw)


def test_several_pictures_stand_in_lines(tmp_path):
    several = [tmp_path / "a.png", tmp_path / "b.png"]
    text = run_figure("one", of(tmp_path), computing(1.0), claims_of, lambda *_: several)
    assert text.splitlines()[-2:] == list(map(str, several))


def test_results_of_another_version_are_not_drawn(tmp_path):
    def more_claims_of(tree):
        return [*claims_of(tree), *claims_of({"number": tree["further"]})]

    run_figure("one", of(tmp_path), computing(1.0), claims_of, draw)
    with pytest.raises(RetinaCodecError, match=r"lacks .*further.*another version.*--reuse"):
        run_figure("one", of(tmp_path, reuse=True), refuse, more_claims_of, draw)
    with pytest.raises(KeyError):  # computed now: a fault of the script
        run_figure("one", of(tmp_path), computing(1.0), more_claims_of, draw)


def test_what_a_user_can_mend_is_one_line(monkeypatch, capsys):
    def main():
        raise RetinaCodecError("images must have labels; found none. Give labels=file.")

    monkeypatch.setattr("sys.argv", ["folder/figure_9.py", "--out", "x"])
    with pytest.raises(SystemExit) as stopped:
        run_script(main)
    assert stopped.value.code == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err == "figure_9.py: images must have labels; found none. Give labels=file.\n"


def test_other_ends_of_a_script():
    run_script(lambda: None)
    run_script(lambda: 0)
    with pytest.raises(SystemExit) as stopped:
        run_script(lambda: 1)
    assert stopped.value.code == 1
    with pytest.raises(ZeroDivisionError):  # a fault of ours shows where
        run_script(lambda: 1 // 0)
