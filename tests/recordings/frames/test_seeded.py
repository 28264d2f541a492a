import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames.lazy import lazy_frames
from retina_codec.recordings.frames.seeded import GENERATORS, SeededFrames, register_generator

SHAPE = (1100, 3, 5)


def whole(generator: str, seed: int) -> np.ndarray:
    """All frames in one go, as the lab's own program would have drawn them."""
    count, height, width = SHAPE
    if generator == "numpy":
        return np.random.default_rng(seed).random(SHAPE) < 0.5
    if generator == "matlab":
        twister = np.random.RandomState(seed)
        columns = [twister.random_sample((width, height)).T for _ in range(count)]
        return np.stack(columns) > 0.5
    if generator == "ran1":
        return ran1_bits(seed, np.prod(SHAPE)).reshape(SHAPE)
    state, draws = seed, np.empty(count * height * width)
    for number in range(draws.size):
        state = 16807 * state % (2**31 - 1)
        draws[number] = state / (2**31 - 1)
    return draws.reshape(SHAPE) < 0.5


def ran1_bits(seed: int, count: int) -> np.ndarray:
    """Bits of the shuffled generator, number by number as the book describes it."""

    def step(x: int) -> int:  # Schrage: no product above 2**31
        x = 16807 * (x - x // 127773 * 127773) - 2836 * (x // 127773)
        return x + 2147483647 if x < 0 else x

    x, table = -seed, [0] * 32
    for place in range(39, -1, -1):
        x = step(x)
        if place < 32:
            table[place] = x
    y, bits = table[0], np.empty(count, dtype=bool)
    for number in range(count):
        x = step(x)
        place = y // (1 + 2147483646 // 32)
        y, table[place] = table[place], x
        bits[number] = y * (1.0 / 2147483647) > 0.5
    return bits


def test_ran1_vectors():
    """Bits of two published recordings' stimuli (Liu et al. 2017)."""
    first = {
        -10000: "0101111011010000001011110000101101000000100111001111011011001011",
        -20000: "0110000111001010011100000111010101011001011000011010000001101100",
    }
    for seed, expected in first.items():
        frames = SeededFrames("ran1", seed=seed, shape=(1, 8, 8)).read(np.array([0]))
        assert "".join("1" if value else "0" for value in frames.ravel()) == expected
    million = SeededFrames("ran1", seed=-10000, shape=(1, 1000, 1000)).read(np.array([0]))
    assert (million > 0).sum() == 499_257
    assert "".join("1" if value else "0" for value in million.ravel()[-16:]) == "0000010010000010"


@given(st.lists(st.integers(0, 1099), min_size=1, max_size=20), st.booleans(), st.data())
@settings(max_examples=30, deadline=None)
def test_ran1_in_any_order_and_any_part_of_the_screen(numbers, columns, data):
    movie = ran1_bits(-7, np.prod(SHAPE)).reshape((SHAPE[0], 5, 3) if columns else SHAPE)
    movie = movie.transpose(0, 2, 1) if columns else movie
    y, x = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 4))
    height, width = data.draw(st.integers(1, 3 - y)), data.draw(st.integers(1, 5 - x))
    part = SeededFrames(
        "ran1",
        seed=-7,
        shape=(1100, height, width),
        order="columns" if columns else "rows",
        screen=(3, 5),
        corner=(y, x),
    )
    expected = movie[numbers, y : y + height, x : x + width] * 255
    np.testing.assert_array_equal(part.read(np.array(numbers)), expected)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(part)).read(np.array(numbers)), expected
    )


def test_ran1_starts_in_the_middle(monkeypatch):
    monkeypatch.setattr("retina_codec.recordings.frames.ran1._KNOWN", {})
    monkeypatch.setattr("retina_codec.recordings.frames.ran1.STRIDE", 1000)
    movie = ran1_bits(-3, 30_000).reshape(1000, 5, 6) * 255
    source = SeededFrames("ran1", seed=-3, shape=(1000, 5, 6))
    for number in (990, 20, 700, 991, 33, 34):
        np.testing.assert_array_equal(source.read(np.array([number])), movie[[number]])


def test_ran1_refuses():
    with pytest.raises(RetinaCodecError, match=r"seed of ran1 must be negative.*got 5"):
        SeededFrames("ran1", seed=5, shape=(2, 3, 5))
    with pytest.raises(RetinaCodecError, match="order must be 'rows' or 'columns'"):
        SeededFrames("ran1", seed=-5, shape=(2, 3, 5), order="xy")
    with pytest.raises(RetinaCodecError, match="must lie on the screen"):
        SeededFrames("ran1", seed=-5, shape=(2, 3, 5), screen=(3, 5), corner=(0, 1))


def test_vectors():
    """What the publications and MATLAB print."""
    assert np.round(np.random.RandomState(5489).random_sample(3), 4).tolist() == [
        0.8147,  # MATLAB's rand after it starts
        0.9058,
        0.1270,
    ]
    state = 1
    for _ in range(10_000):
        state = 16807 * state % (2**31 - 1)
    assert state == 1043618065  # Park and Miller 1988, page 1195
    assert whole("minimal_standard", 1)[0, 0].tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("generator", ["numpy", "matlab", "minimal_standard"])
def test_every_frame_is_the_one_of_the_whole_movie(generator):
    expected = whole(generator, 17) * 255
    source = SeededFrames(generator, seed=17, shape=SHAPE)
    np.testing.assert_array_equal(lazy_frames(source).compute(), expected)
    numbers = np.array([1099, 3, 512, 511, 3, 700])
    fresh = SeededFrames(generator, seed=17, shape=SHAPE)
    np.testing.assert_array_equal(fresh.read(numbers), expected[numbers])
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(source)).read(numbers), expected[numbers]
    )
    other = SeededFrames(generator, seed=18, shape=SHAPE).read(np.arange(9))
    assert 0.3 < (other != expected[:9]).mean() < 0.7


@given(st.lists(st.integers(0, 1099), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_any_numbers_in_any_order(numbers):
    for generator in ("numpy", "matlab"):
        found = SeededFrames(generator, seed=2, shape=SHAPE).read(np.array(numbers))
        np.testing.assert_array_equal(found, whole(generator, 2)[numbers] * 255)


def test_bits_of_a_file_most_significant_first(tmp_path):
    stored = np.random.default_rng(0).integers(0, 256, 400, dtype=np.uint8)
    (tmp_path / "ran1.bin").write_bytes(stored.tobytes())
    bits = [int(bit) for byte in stored for bit in f"{byte:08b}"]
    source = SeededFrames(
        "bits", seed=3, shape=(200, 3, 5), file=tmp_path / "ran1.bin", dark=-1, bright=1
    )
    expected = np.array(bits[3 : 3 + 200 * 15]).reshape(200, 3, 5) * 2 - 1
    np.testing.assert_array_equal(source.read(np.arange(200)), expected)
    assert source.dtype == np.float32
    far = SeededFrames("bits", seed=3, shape=(900, 3, 5), file=tmp_path / "ran1.bin")
    with pytest.raises(RetinaCodecError, match="must hold 13503 bits for frame 899; it holds 3200"):
        far.read(np.array([899]))
    with pytest.raises(RetinaCodecError, match="the bits must be in a file"):
        SeededFrames("bits", seed=0, shape=(2, 3, 5))


@pytest.mark.parametrize("generator", ["numpy", "matlab", "minimal_standard", "ran1"])
@pytest.mark.parametrize("settings", [{"probability": 0.2}, {"dark": 10}, {"bright": 0.5}])
def test_every_setting_changes_the_frames(generator, settings):
    seed = -5 if generator == "ran1" else 5
    plain = SeededFrames(generator, seed=seed, shape=SHAPE).read(np.arange(40))
    changed = SeededFrames(generator, seed=seed, shape=SHAPE, **settings).read(np.arange(40))
    assert (plain != changed).any()
    if "probability" in settings:
        assert (changed > 0).mean() == pytest.approx(0.2, abs=0.06)


def test_a_generator_of_the_lab(monkeypatch):
    monkeypatch.setattr("retina_codec.recordings.frames.seeded.GENERATORS", dict(GENERATORS))

    @register_generator("stripes")
    def stripes(numbers, *, seed, height, width, contrast=1.0):
        phase = (numbers[:, None, None] + seed + np.arange(width)) % 2
        return (np.broadcast_to(phase, (len(numbers), height, width)) * contrast).astype("f4")

    found = SeededFrames("stripes", seed=1, shape=(4, 2, 3), contrast=0.5).read(np.array([0, 1]))
    assert found[:, 0].tolist() == [[0.5, 0, 0.5], [0, 0.5, 0]]
    with pytest.raises(RetinaCodecError, match="does not take these settings"):
        SeededFrames("stripes", seed=1, shape=(4, 2, 3), color="red")
    with pytest.raises(RetinaCodecError, match="already a generator named 'stripes'"):
        register_generator("stripes")(stripes)
    with pytest.raises(
        RetinaCodecError, match="one of bits, matlab, minimal_standard, numpy, ran1, stripes"
    ):
        SeededFrames("dots", seed=1, shape=(4, 2, 3))
    with pytest.raises(RetinaCodecError, match=r"shape must be \(time, y, x\), all positive"):
        SeededFrames("numpy", seed=1, shape=(0, 2, 3))
    with pytest.raises(RetinaCodecError, match="between 1 and 2147483646; got 0"):
        SeededFrames("minimal_standard", seed=0, shape=(4, 2, 3))
