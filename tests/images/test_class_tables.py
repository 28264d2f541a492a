"""Names of classes in the layouts of ImageNet's lists; tables that are none."""

import json

import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.images import labels as class_tables
from retina_codec.images.labels import read_class_names, read_text

LINES = """n01440764 tench, Tinca tinca
n01443537\tgoldfish, Carassius auratus
n02012849 crane

"""
NAMES = {"n01440764": "tench", "n01443537": "goldfish", "n02012849": "crane"}


def test_lines_of_ids_and_names(tmp_path):
    (tmp_path / "LOC_synset_mapping.txt").write_text(LINES)
    found = read_class_names(tmp_path / "LOC_synset_mapping.txt")
    assert found == NAMES
    assert list(found) == list(NAMES)


def test_ids_alone_are_their_own_names(tmp_path):
    (tmp_path / "ids.txt").write_text("n01440764\nn01443537\n")
    assert read_class_names(tmp_path / "ids.txt") == {n: n for n in ("n01440764", "n01443537")}


def test_json_by_id_and_by_number(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(NAMES))
    assert read_class_names(tmp_path / "a.json") == NAMES
    numbered = {str(place): list(pair) for place, pair in enumerate(NAMES.items())}
    (tmp_path / "b.json").write_text(json.dumps(numbered))
    assert read_class_names(tmp_path / "b.json") == NAMES


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "0 rows for 0 ids"),
        ("a.txt", b"n1 a\nn1 b\n", "2 rows for 1 ids"),
        ("a.json", b"[]", "must hold a table"),
        ("a.json", b"{]", "must be JSON"),
        ("a.txt", b"\xff\xfe\x00", "text in UTF-8"),
    ],
)
def test_what_is_no_list_is_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RetinaCodecError, match=message):
        read_class_names(tmp_path / name)


def test_missing_and_huge_tables_are_refused(tmp_path, monkeypatch):
    with pytest.raises(RetinaCodecError, match="No such file"):
        read_text(tmp_path / "none.txt")
    monkeypatch.setattr(class_tables, "LARGEST", 3)
    (tmp_path / "a.txt").write_text("four")
    with pytest.raises(RetinaCodecError, match="as a table; it is larger"):
        read_text(tmp_path / "a.txt")


def test_a_mark_of_byte_order_is_no_part_of_the_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfn1 a\n")
    assert read_class_names(tmp_path / "a.txt") == {"n1": "a"}
