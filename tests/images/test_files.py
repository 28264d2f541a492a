"""Pictures are found in every layout, and read as red, green and blue in every mode."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from retina_codec.errors import RetinaCodecError
from retina_codec.images.files import find_pictures, natural, read_picture
from tests.recordings.picture_files import WORDNET, write_classes, write_flat, write_picture

VALUES = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)


def read(path, **options):
    picture = read_picture(path, **options)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def test_lossless_formats_come_back_exactly(tmp_path):
    for suffix in ("png", "bmp", "tif", "ppm"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(VALUES).save(path)
        np.testing.assert_array_equal(read(path), VALUES)
    Image.fromarray(VALUES).save(tmp_path / "a.webp", lossless=True)
    np.testing.assert_array_equal(read(tmp_path / "a.webp"), VALUES)


def test_the_content_decides_not_the_name(tmp_path):
    """ImageNet has a PNG that is called .JPEG."""
    Image.fromarray(VALUES).save(tmp_path / "a.JPEG", format="PNG")
    np.testing.assert_array_equal(read(tmp_path / "a.JPEG"), VALUES)


def test_grey_is_repeated(tmp_path):
    grey = VALUES[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, 2))
    bits = grey > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read(tmp_path / "bits.png")[..., 1], bits * 255)


def test_grey_of_16_bits_is_scaled_not_cut_off(tmp_path):
    wide = np.array([[0, 257, 300], [32896, 65279, 65535]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    expected = np.array([[0, 1, 1], [128, 254, 255]])
    np.testing.assert_array_equal(read(tmp_path / "wide.png")[..., 2], expected)


def test_palettes_and_transparency(tmp_path):
    palette = Image.fromarray(VALUES).quantize(24)
    palette.save(tmp_path / "palette.png")
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(read(tmp_path / "palette.png"), expected)
    palette.save(tmp_path / "clear.png", transparency=bytes(range(24)))
    np.testing.assert_array_equal(read(tmp_path / "clear.png"), expected)
    alpha = np.concatenate([VALUES, VALUES[..., :1]], 2)
    Image.fromarray(alpha, "RGBA").save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read(tmp_path / "alpha.png"), VALUES)


def test_cmyk_by_its_formula(tmp_path):
    """red = (255 − cyan) (255 − black) / 255, and so on, to two levels."""
    ink = np.random.default_rng(1).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    Image.fromarray(ink, "CMYK").save(tmp_path / "ink.tif")
    free = 255.0 - ink
    np.testing.assert_allclose(
        read(tmp_path / "ink.tif"), free[..., :3] * free[..., 3:] / 255, atol=2
    )
    flat = np.full((16, 16, 4), [10, 100, 200, 30], np.uint8)
    Image.fromarray(flat, "CMYK").save(tmp_path / "ink.jpg", quality=95)
    expected = (255 - flat[0, 0, :3].astype(float)) * 225 / 255
    np.testing.assert_allclose(read(tmp_path / "ink.jpg")[8, 8], expected, atol=6)


ORIENTATIONS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_pictures_are_turned_as_exif_says(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(VALUES).save(tmp_path / "a.png", exif=exif)
    expected = ORIENTATIONS[orientation](VALUES)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), expected)
    np.testing.assert_array_equal(read(tmp_path / "a.png", orient=False), VALUES)


def test_the_first_of_several_frames(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), level, np.uint8)) for level in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read(tmp_path / "a.gif")[0, 0, 0] == 10


def jpeg():
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


def bomb():
    """A PNG that says that it is 100,000 px on each side."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = zlib.compress(b"0" * 100)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def png():
    stream = io.BytesIO()
    Image.fromarray(VALUES).save(stream, "PNG")
    return stream.getvalue()


def floats():
    stream = io.BytesIO()
    Image.fromarray(np.ones((3, 3), np.float32)).save(stream, "TIFF")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a picture"),
        (b"some text", "not a picture"),
        (jpeg()[: len(jpeg()) // 2], "truncated"),
        (jpeg()[:2], "not a picture"),
        (png()[:60], "truncated"),
        (png()[:40] + b"xxxx" + png()[44:], "it is not"),
        (bomb(), "exceeds limit"),
        (floats(), "floating-point numbers; give such pictures as a DataArray"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    ],
)
def test_damage_is_one_error_that_names_the_file(content, reason, tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(RetinaCodecError, match=reason) as caught:
        read_picture(path)
    assert str(path) in str(caught.value)
    assert "damaged='skip'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(RetinaCodecError, match="no file is there"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(RetinaCodecError, match="directory"):
        read_picture(tmp_path)


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
