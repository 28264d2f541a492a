"""Tables of labels and of class names in every layout; each doubt is an error."""

import json

import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.images import labels as class_tables
from retina_codec.images.labels import labels_of_files, read_class_names, read_text
from tests.recordings.picture_files import WORDNET

FILES = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 7)]
LABELS = [WORDNET[number % 3] for number in (0, 1, 2, 2, 1, 0)]
STEMS = [file.removesuffix(".JPEG") for file in FILES]


def rows(names, cells, between, header=""):
    return header + "\n".join(between.join(pair) for pair in zip(names, cells, strict=True))


TABLES = {
    "plain.csv": rows(FILES, LABELS, ","),
    "header.csv": rows(FILES, LABELS, ",", "file,label\n"),
    "spaces.csv": rows(FILES, LABELS, " , "),
    "more.csv": rows(FILES, [f"{label},7,8" for label in LABELS], ","),
    # as in LOC_val_solution.csv: no suffix, boxes behind the label
    "kaggle.csv": rows(
        STEMS[::-1],
        [f"{label} 85 1 499 272 {label} 3 4 5 6" for label in LABELS[::-1]],
        ",",
        "ImageId,PredictionString\n",
    ),
    "caffe.txt": rows(FILES, LABELS, " "),
    "tab.tsv": rows(FILES, LABELS, "\t", "name\tlabel\n"),
    "a.json": json.dumps(dict(zip(FILES, LABELS, strict=True))),
    "stems.json": json.dumps(dict(zip(STEMS, LABELS, strict=True))),
    "extra.csv": rows(["other.JPEG", *FILES], ["x", *LABELS], ","),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_every_kind(name, tmp_path):
    (tmp_path / name).write_text(TABLES[name])
    assert labels_of_files(FILES, tmp_path / name) == LABELS
    assert labels_of_files(FILES[::-1], tmp_path / name) == LABELS[::-1]


def test_a_mapping():
    assert labels_of_files(FILES, dict(zip(STEMS, LABELS, strict=True))) == LABELS


def test_words_of_a_label_are_kept_where_it_is_no_wordnet_id(tmp_path):
    (tmp_path / "a.csv").write_text("a.png,great white shark\nb.png,ox\n")
    assert labels_of_files(["a.png", "b.png"], tmp_path / "a.csv") == ["great white shark", "ox"]


def numbered(folder, numbers, order):
    (folder / "truth.txt").write_text("\n".join(map(str, numbers)) + "\n")
    (folder / "order.txt").write_text("\n".join(order) + "\n")
    return folder / "truth.txt", folder / "order.txt"


ORDER = (WORDNET[2], WORDNET[0], WORDNET[1])  # numbers 1, 2, 3: not by alphabet
NUMBERS = [ORDER.index(label) + 1 for label in LABELS]


@pytest.mark.parametrize(
    "line", ["{id}", "{id} some, names", "{number} {id} some names", "{number}\t{id}"]
)
def test_numbers_follow_the_order_of_classes(line, tmp_path):
    order = [line.format(number=number + 1, id=one) for number, one in enumerate(ORDER)]
    labels = numbered(tmp_path, NUMBERS, order)
    assert labels_of_files(FILES, labels) == LABELS
    # a part of the pictures keeps the lines that its names tell
    assert labels_of_files(FILES[3:5], labels) == LABELS[3:5]


def test_numbers_go_with_files_in_order_where_names_have_none(tmp_path):
    names = [f"picture{number}.png" for number in range(6)]
    assert labels_of_files(names, numbered(tmp_path, NUMBERS, ORDER)) == LABELS
    with pytest.raises(RetinaCodecError, match="it has 6 for 5"):
        labels_of_files(names[:5], numbered(tmp_path, NUMBERS, ORDER))


@pytest.mark.parametrize(
    ("numbers", "order", "message"),
    [
        ([0, 1, 2, 2, 1, 0], ORDER, "number the 3 classes of order.txt from 1; it has 0 to 2"),
        ([1, 2, 3, 4, 1, 1], ORDER, "it has 1 to 4"),
        ([1, 2, 3], ORDER, "has 3 lines; pictures are numbered from 1 to 6"),
        (["1", "x"], ORDER, "whole number per line; got 'x'"),
        (NUMBERS, (*ORDER, ORDER[0]), "every class once"),
        (NUMBERS, (), "every class once"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(numbers, order, message, tmp_path):
    with pytest.raises(RetinaCodecError, match=message):
        labels_of_files(FILES, numbered(tmp_path, numbers, order))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", rows(FILES[:4], LABELS[:4], ","), "2 of 6 have none, first 'ILSVRC2012_val_.*5"),
        ("a.csv", rows([*FILES, FILES[0]], [*LABELS, "x"], ","), "'ILSVRC.*1.JPEG' has two"),
        ("a.csv", "", "6 of 6 have none"),
        ("a.csv", "just one column\n", "a file and a label in every row"),
        ("a.txt", "1\n2\n3\n", "numbers alone. Pass labels="),
        ("a.json", "[]", "must hold a table"),
        ("a.json", '{"a": []}', "a table of files and labels"),
        ("a.json", "{", "must be JSON"),
        ("a.xlsx", "", "must be a .csv, .tsv, .txt or .json"),
    ],
)
def test_tables_that_do_not_fit_are_refused(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(RetinaCodecError, match=message):
        labels_of_files(FILES, tmp_path / name)


def test_two_paths_are_numbers_and_order(tmp_path):
    with pytest.raises(RetinaCodecError, match="got 3 paths"):
        labels_of_files(FILES, (tmp_path, tmp_path, tmp_path))
    with pytest.raises(RetinaCodecError, match="No such file"):
        labels_of_files(FILES, tmp_path / "none.csv")


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
