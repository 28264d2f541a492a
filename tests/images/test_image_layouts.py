"""Pictures are found in every layout, in one order, and not beyond the folder."""

import os

import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.images.files import find_pictures, natural
from tests.recordings.picture_files import WORDNET, write_classes, write_flat, write_picture


def test_natural_order():
    names = ["b1", "a10", "a2", "a02", "10", "9", "a"]
    assert sorted(names, key=natural) == ["9", "10", "a", "a02", "a2", "a10", "b1"]


def test_folders_of_classes(tmp_path):
    write_classes(tmp_path)
    (tmp_path / WORDNET[0] / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    write_picture(tmp_path / ".hidden" / "a.png", 1)
    write_picture(tmp_path / WORDNET[0] / "._picture 1.png", 1)
    found = find_pictures(tmp_path)
    expected = [f"{name}/picture {number}.png" for name in WORDNET for number in range(1, 13)]
    assert found.files == expected
    assert found.labels == [file.split("/")[0] for file in expected]
    assert found.classes == list(WORDNET)


def test_folders_inside_classes_belong_to_them(tmp_path):
    write_picture(tmp_path / "a" / "deep" / "x.png", 0)
    write_picture(tmp_path / "b" / "y.png", 1)
    found = find_pictures(tmp_path)
    assert found.files == ["a/deep/x.png", "b/y.png"]
    assert found.labels == ["a", "b"]


def test_an_empty_class_keeps_its_number(tmp_path):
    """Networks number classes as they did in training."""
    write_classes(tmp_path, ("a", "c"), 2)
    (tmp_path / "b").mkdir()
    assert find_pictures(tmp_path).classes == ["a", "b", "c"]


def test_classes_are_numbered_as_python_sorts_them(tmp_path):
    """torchvision puts "10" before "2"; pictures come in natural order all the same."""
    write_classes(tmp_path, ("2", "10", "1"), 1)
    found = find_pictures(tmp_path)
    assert found.classes == ["1", "10", "2"]
    assert found.labels == ["1", "2", "10"]


@pytest.mark.parametrize(("name", "part"), [("val", "val"), ("validation", "val"), ("odd", "odd")])
def test_parts(name, part, tmp_path):
    write_classes(tmp_path / "train", each=3)
    write_classes(tmp_path / name, each=2)
    assert len(find_pictures(tmp_path, part="train").files) == 9
    found = find_pictures(tmp_path, part=part)
    assert len(found.files) == 6
    assert found.folder == (tmp_path / name).resolve()
    assert find_pictures(tmp_path / name, part=part).files == found.files


def test_a_part_must_be_chosen_and_there(tmp_path):
    write_classes(tmp_path / "train", each=1)
    write_classes(tmp_path / "val", each=1)
    with pytest.raises(RetinaCodecError, match=r"must be chosen; pass part= one of train, val\."):
        find_pictures(tmp_path)
    with pytest.raises(RetinaCodecError, match=r"one folder test or testing in .*; it has train"):
        find_pictures(tmp_path, part="test")
    write_classes(tmp_path / "validation", each=1)
    with pytest.raises(RetinaCodecError, match="one folder val or validation"):
        find_pictures(tmp_path, part="val")


def test_flat_folders(tmp_path):
    names = write_flat(tmp_path)
    found = find_pictures(tmp_path)
    assert found.files == names
    assert found.labels is None
    table = {name: WORDNET[place % 3] for place, name in enumerate(names)}
    found = find_pictures(tmp_path, labels=table)
    assert found.labels == list(table.values())
    assert found.classes == list(WORDNET)


def test_a_table_of_labels_needs_names_that_differ(tmp_path):
    write_classes(tmp_path, each=2)
    with pytest.raises(RetinaCodecError, match="names of pictures must differ"):
        find_pictures(tmp_path, labels={})


def test_links_are_not_followed_out_of_the_folder(tmp_path):
    write_classes(tmp_path / "elsewhere", ("far",), 2)
    inside = tmp_path / "inside"
    write_classes(inside, ("near",), 2)
    os.symlink(inside / "near" / "picture 1.png", inside / "near" / "same.png")
    assert len(find_pictures(inside).files) == 3  # a link that stays inside
    os.symlink(tmp_path / "elsewhere" / "far", inside / "far")
    with pytest.raises(RetinaCodecError, match=r"links must stay in the folder.*follow_links=True"):
        find_pictures(inside)
    assert len(find_pictures(inside, follow_links=True).files) == 5
    (inside / "far").unlink()
    os.symlink(tmp_path / "elsewhere" / "far" / "picture 1.png", inside / "near" / "far.png")
    with pytest.raises(RetinaCodecError, match="links must stay in the folder"):
        find_pictures(inside)


def test_links_between_parts_stay_inside(tmp_path):
    write_classes(tmp_path / "train", each=1)
    os.symlink(tmp_path / "train", tmp_path / "val")
    assert len(find_pictures(tmp_path, part="val").files) == 3


def test_a_folder_that_is_a_link_itself_and_a_circle(tmp_path):
    write_classes(tmp_path / "real", ("a", "b"), 1)
    os.symlink(tmp_path / "real", tmp_path / "link")
    assert len(find_pictures(tmp_path / "link").files) == 2
    os.symlink(tmp_path / "real", tmp_path / "real" / "a" / "up")
    assert len(find_pictures(tmp_path / "real").files) == 2


def test_the_order_of_the_disk_does_not_matter(tmp_path, monkeypatch):
    write_classes(tmp_path, each=3)
    before = find_pictures(tmp_path)
    plain = os.scandir

    class Backwards:
        def __init__(self, folder):
            with plain(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    assert find_pictures(tmp_path) == before


def test_what_is_no_collection_is_refused(tmp_path):
    with pytest.raises(RetinaCodecError, match="is not there"):
        find_pictures(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(RetinaCodecError, match="is a file"):
        find_pictures(tmp_path / "file")
    with pytest.raises(RetinaCodecError, match="there must be pictures"):
        find_pictures(tmp_path)
    write_picture(tmp_path / "a" / "x.png", 0)
    write_picture(tmp_path / "y.png", 0)
    with pytest.raises(RetinaCodecError, match=r"both folders and 'y\.png'"):
        find_pictures(tmp_path)
