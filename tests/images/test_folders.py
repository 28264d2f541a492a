"""Folders of pictures as data: labels, names, superclasses, choices, and what reaches results."""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch.utils.data import DataLoader

import retina_codec as rc
from retina_codec.errors import RetinaCodecError
from retina_codec.images.folders import CenterCrop, FileSettings, open_images
from retina_codec.images.hierarchy import membership
from retina_codec.methods.gradients import ActGrad
from retina_codec.targets.base import Sum
from tests.recordings.picture_files import (
    NAMES,
    WORDNET,
    write_classes,
    write_flat,
    write_picture,
)


@pytest.fixture
def imagenet(tmp_path):
    """ImageNet in small: train and a flat validation set with numbers of another order."""
    write_classes(tmp_path / "train")
    write_flat(tmp_path / "val")
    lines = [f"{one} {name}, {name}fish" for one, name in NAMES.items()]
    (tmp_path / "LOC_synset_mapping.txt").write_text("\n".join(lines))
    (tmp_path / "order.txt").write_text("\n".join(WORDNET[::-1]))
    numbers = [3 - place % 3 for place in range(9)]
    (tmp_path / "truth.txt").write_text("\n".join(map(str, numbers)))
    (tmp_path / "is_a.txt").write_text(
        f"fish {WORDNET[0]}\nfish {WORDNET[1]}\nbird {WORDNET[2]}\nanimal fish\nanimal bird\n"
    )
    return tmp_path


def red(images, index):
    picture = images[index]
    picture = picture[0] if isinstance(picture, tuple) else picture
    return round(float(picture[0, 0, 0]) * 255)


def test_folders_of_classes(imagenet):
    images = open_images(imagenet, part="train")
    assert len(images) == 36
    assert images.shape == (3, 8, 8)
    for index in range(36):
        picture, number = images[index]
        assert picture.dtype == torch.float32
        expected = torch.tensor([index, 2, 3]) / 255
        torch.testing.assert_close(picture, expected.view(3, 1, 1).expand(3, 8, 8))
        assert number == index // 12
        assert images.coords["label"][index] == WORDNET[index // 12]
        assert images.coords["label_name"][index] == NAMES[WORDNET[index // 12]]
        assert (
            images.coords["file"][index] == f"{WORDNET[index // 12]}/picture {index % 12 + 1}.png"
        )
    np.testing.assert_array_equal(images.coords["wordnet_id"], images.coords["label"])
    assert images.classes == list(WORDNET)
    assert red(images, -1) == 35
    with pytest.raises(IndexError):
        images[36]


def test_a_flat_validation_set_in_three_layouts_of_labels(imagenet, tmp_path):
    names = sorted(os.listdir(imagenet / "val"))
    rows = [f"{name.removesuffix('.JPEG')},{WORDNET[k % 3]} 1 2" for k, name in enumerate(names)]
    (tmp_path / "solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(rows))
    for labels in ((imagenet / "truth.txt", imagenet / "order.txt"), tmp_path / "solution.csv"):
        images = open_images(imagenet, part="val", labels=labels)
        assert images.coords["label"].tolist() == [WORDNET[k % 3] for k in range(9)]
        assert [images[k][1] for k in range(9)] == [k % 3 for k in range(9)]
        assert [red(images, k) for k in range(9)] == list(range(9))
    plain = open_images(imagenet, part="val")
    assert set(plain.coords) == {"file"}
    assert isinstance(plain[0], torch.Tensor)


def test_numbers_of_classes_are_those_of_the_list_of_names(imagenet):
    """A folder with a few classes of ImageNet keeps the numbers that a network gives them."""
    lines = ["n00000001 first", *(f"{one} {NAMES[one]}" for one in WORDNET[::-1])]
    (imagenet / "names.txt").write_text("\n".join(lines))
    images = open_images(imagenet, part="train", names=imagenet / "names.txt")
    assert images.classes == ["n00000001", *WORDNET[::-1]]
    assert sorted(set(images.coords["class_number"].tolist())) == [1, 2, 3]
    assert images[0][1] == 3
    with pytest.raises(RetinaCodecError, match=r"no label of .* is among them"):
        open_images(imagenet, part="train", names={"x": "y"})


def test_superclasses(imagenet):
    images = open_images(imagenet, part="train", hierarchy=imagenet / "is_a.txt")
    assert set(images.coords["superclass"]) == {""}  # each has two ancestors: see membership
    members = membership(images.coords["label"], rc_hierarchy(imagenet))
    assert members.sel(concept="fish").sum() == 24
    assert members.sel(concept="animal").all()
    levels = {"n01440764": ("fish", "animal"), "n01443537": ("fish", "animal")}
    table = "".join(f"{one},{low},{high}\n" for one, (low, high) in levels.items())
    (imagenet / "h.csv").write_text("class,kind,kingdom\n" + table)
    images = open_images(imagenet, part="train", hierarchy=imagenet / "h.csv")
    assert images.coords["kind"].tolist() == ["fish"] * 24 + [""] * 12
    assert images.coords["kingdom"].tolist() == ["animal"] * 24 + [""] * 12
    images = open_images(imagenet, part="train", hierarchy={one: "fish" for one in WORDNET[:2]})
    assert images.coords["superclass"].tolist() == ["fish"] * 24 + [""] * 12
    with pytest.raises(RetinaCodecError, match="must hold the labels"):
        open_images(imagenet, part="train", hierarchy={"dog": "animal"})


def rc_hierarchy(folder):
    from retina_codec.images.hierarchy import open_hierarchy

    return open_hierarchy(folder / "is_a.txt")


def test_some_classes_by_label_or_name(imagenet):
    images = open_images(imagenet, part="train", classes=["crane", WORDNET[0]])
    assert images.coords["label"].tolist() == [WORDNET[0]] * 12 + [WORDNET[2]] * 12
    assert [images[0][1], images[23][1]] == [0, 2]
    assert red(images, 12) == 24
    with pytest.raises(RetinaCodecError, match=r"'dog': it is not there\. There are 3 classes"):
        open_images(imagenet, part="train", classes=["dog"])
    twice = {one: "fish" for one in WORDNET}
    with pytest.raises(RetinaCodecError, match="'fish': it names"):
        open_images(imagenet, part="train", classes=["fish"], names=twice)


def test_a_limit_per_class_is_drawn_by_seed(imagenet):
    first = open_images(imagenet, part="train", limit_per_class=4, seed=1)
    assert first.attrs["seed"] == 1
    label, file = first.coords["label"], first.coords["file"]
    assert label.tolist() == [one for one in WORDNET for _ in range(4)]
    again = open_images(imagenet, part="train", limit_per_class=4, seed=1)
    np.testing.assert_array_equal(again.coords["file"], file)
    other = open_images(imagenet, part="train", limit_per_class=4, seed=2)
    assert (other.coords["file"] != file).any()
    one = open_images(imagenet, part="train", limit_per_class=4, seed=1, classes=[WORDNET[1]])
    np.testing.assert_array_equal(one.coords["file"], file[4:8])
    whole = open_images(imagenet, part="train").coords["file"].tolist()
    assert [whole.index(name) for name in file] == sorted(whole.index(name) for name in file)
    chosen = [
        open_images(imagenet, part="train", limit_per_class=1, seed=s).coords["file"][0]
        for s in range(60)
    ]
    assert len(set(chosen)) == 12  # every picture of a class can be drawn
    assert len(open_images(imagenet, part="val", limit_per_class=5)) == 5


def test_damaged_pictures(imagenet):
    broken = imagenet / "train" / WORDNET[1] / "picture 3.png"
    broken.write_bytes(broken.read_bytes()[:40])
    (broken.parent / "picture 4.png").write_bytes(b"")
    images = open_images(imagenet, part="train")
    assert len(images) == 36
    with pytest.raises(RetinaCodecError, match=r"picture 3\.png must be a picture"):
        images[14]
    with pytest.raises(RetinaCodecError, match=r"2 of 36 pictures are damaged: .*picture 3\.png"):
        open_images(imagenet, part="train", files=FileSettings("error"), progress=False)
    images = open_images(imagenet, part="train", files=FileSettings("skip"), progress=False)
    assert len(images) == 34
    assert images.attrs["damaged"] == 2
    assert [red(images, k) for k in (13, 14)] == [13, 16]
    with pytest.raises(RetinaCodecError, match="damaged must be"):
        FileSettings("ignore")


def test_pictures_of_two_sizes_need_a_crop(imagenet):
    write_picture(imagenet / "train" / WORDNET[2] / "zz.png", 1, size=(9, 20))
    images = open_images(imagenet, part="train")
    with pytest.raises(RetinaCodecError, match=r"one size; the first is \(3, 8, 8\), .*zz\.png is"):
        images[36]
    cropped = open_images(imagenet, part="train", preprocess=CenterCrop(6))
    assert cropped[36][0].shape == (3, 6, 6)


def test_preprocess_may_give_arrays_but_no_other_things(imagenet):
    arrays = open_images(
        imagenet, part="train", preprocess=lambda p: np.asarray(p)[None, ..., 0] / np.float32(2)
    )
    assert float(arrays[7][0][0, 0, 0]) == 3.5
    for wrong, came in ((lambda p: p, "Image"), (lambda p: np.zeros((2, 2)), r"\(2, 2\)")):  # noqa: ARG005
        with pytest.raises(RetinaCodecError, match=f"it returned {came}"):
            open_images(imagenet, part="train", preprocess=wrong)


def test_a_crop_is_the_middle_of_a_smaller_picture():
    picture = Image.fromarray(load_sample_image("china.jpg")[:300, :500])
    found = CenterCrop(64, resize=100)(picture)
    whole = np.asarray(picture.resize((167, 100), Image.Resampling.BICUBIC), np.float32) / 255
    np.testing.assert_array_equal(found, whole[18:82, 51:115].transpose(2, 0, 1))
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    normal = CenterCrop(64, resize=100, mean=mean, std=std)(picture)
    torch.testing.assert_close(
        normal * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1), found
    )
    upright = picture.rotate(90, expand=True)
    assert CenterCrop(64, resize=100)(upright).shape == (3, 64, 64)
    # a plain picture keeps its colour whatever its size
    flat = CenterCrop(5)(Image.fromarray(np.full((7, 12, 3), 51, np.uint8)))
    torch.testing.assert_close(flat, torch.full((3, 5, 5), 0.2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "smaller than what is cut out"),
        ({"size": 10, "resize": 8}, "smaller than what is cut out"),
        ({"size": 10, "mean": (0.0, 0.0, 0.0)}, "given together"),
    ],
)
def test_crops_that_cannot_be(arguments, message):
    with pytest.raises(RetinaCodecError, match=message):
        CenterCrop(**arguments)


def test_it_travels_to_other_processes(imagenet):
    images = open_images(imagenet, part="train", preprocess=CenterCrop(6), limit_per_class=5)
    again = pickle.loads(pickle.dumps(images))
    for index in (0, 7, 14):
        torch.testing.assert_close(again[index][0], images[index][0])
    batches = list(DataLoader(again, batch_size=4))
    assert [len(batch[1]) for batch in batches] == [4, 4, 4, 3]
    torch.testing.assert_close(batches[1][0][2], images[6][0])


@pytest.mark.slow
def test_workers_read_the_same(imagenet):
    images = open_images(imagenet, part="train", preprocess=CenterCrop(6))
    found = torch.cat([batch for batch, _ in DataLoader(images, batch_size=7, num_workers=2)])
    torch.testing.assert_close(found, torch.stack([images[k][0] for k in range(36)]))


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_labels_reach_the_results(imagenet, tmp_path, suffix):
    images = open_images(
        imagenet, part="train", limit_per_class=3, hierarchy={one: "fish" for one in WORDNET[:2]}
    )
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 3)
    )
    results = rc.contribute(
        network,
        images,
        target=Sum(),
        method=ActGrad(),
        layers=["0"],
        store=tmp_path / f"results{suffix}",
        progress=False,
    )
    found = results["layers/0"].to_dataset()
    for name in ("label", "label_name", "file", "superclass", "class_number", "wordnet_id"):
        np.testing.assert_array_equal(found[name].values, images.coords[name])
    stacked = torch.stack([images[k][0] for k in range(9)])
    by_hand = rc.contribute(
        network, stacked, target=Sum(), method=ActGrad(), layers=["0"], progress=False
    )
    np.testing.assert_allclose(
        found["contribution"], by_hand["layers/0/contribution"], rtol=1e-6, atol=1e-7
    )


def test_what_does_not_fit_is_refused(imagenet):
    for options, message in (
        ({"part": "val", "classes": ["crane"]}, "need labels"),
        ({"part": "val", "hierarchy": {"a": "b"}}, "need labels"),
        ({"part": "train", "limit_per_class": 0}, "limit_per_class must be at least 1"),
        ({}, "pass part= one of"),
    ):
        with pytest.raises(RetinaCodecError, match=message):
            open_images(imagenet, **options)


def test_pictures_can_be_taken_in_another_order(imagenet):
    found = open_images(imagenet, part="train")
    order = np.random.default_rng(0).permutation(len(found))
    taken = found.take(order)
    assert len(taken) == len(found)
    for place, number in enumerate(order):
        one, label = taken[place]
        other, same = found[int(number)]
        assert label == same
        assert torch.equal(one, other)
        assert taken.coords["file"][place] == found.coords["file"][number]
    assert (taken.classes, taken.shape) == (found.classes, found.shape)
    assert len(found.take([2])) == 1
