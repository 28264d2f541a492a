"""Checkpoints of strangers: equal to torch's own reading, or one error; nothing in them runs."""

import io
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

import retina_codec as rc
from retina_codec.networks.published.files import read_checkpoint
from retina_codec.networks.published.pickle import follow
from tests.networks.published_files import small_checkpoint, write

DATA = Path(__file__).resolve().parents[2] / "data" / "checkpoints"
ROOT = Path(__file__).resolve().parents[3]


def same(one, other):
    """Compare two trees of containers, numbers, arrays and tensors."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            same(left, right)
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("legacy", [False, True])
def test_everything_is_read_as_torch_reads_it(legacy, tmp_path):
    checkpoint = small_checkpoint()
    weight = torch.nn.Parameter(torch.randn(3, 4))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    checkpoint["optim_state_dict"] = optimizer.state_dict()
    checkpoint["parameter"] = weight
    checkpoint["views"] = [weight.detach().T, weight.detach()[1:, ::2]]
    checkpoint["numbers"] = [True, None, -3, 2**40, 1.5, "μm", (), np.arange(6).reshape(2, 3)]
    checkpoint["zero_dict"] = {"sequential.0": {1, 2}}
    path = write(checkpoint, tmp_path / "all.pt", legacy=legacy)
    theirs = torch.load(path, weights_only=False)
    same(read_checkpoint(path), theirs)


@pytest.mark.parametrize("file", ["vary_model.pt", "vary_model_legacy.pt"])
def test_full_size_files_are_read_as_torch_reads_them(file):
    """The older one also has names of numpy that are no more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = torch.load(DATA / file, weights_only=False, map_location="cpu")
    same(read_checkpoint(DATA / file), theirs)


def test_a_link_to_the_file_is_the_file(tmp_path):
    (tmp_path / "link.pt").symlink_to(write(small_checkpoint(), tmp_path / "net.pt"))
    same(read_checkpoint(tmp_path / "link.pt"), read_checkpoint(tmp_path / "net.pt"))


def test_no_file_and_other_files(tmp_path):
    with pytest.raises(rc.RetinaCodecError, match="no file is there"):
        read_checkpoint(tmp_path / "net.pt")
    for content in (b"", b"P", b"PK", b"hello", b"\x80\x02", os.urandom(500), b"\x80\x02}q\x00."):
        (tmp_path / "net.pt").write_bytes(content)
        with pytest.raises(rc.RetinaCodecError, match=r"net\.pt must be a checkpoint"):
            read_checkpoint(tmp_path / "net.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(rc.RetinaCodecError, match="holds one list"):
        read_checkpoint(tmp_path / "list.pt")


# Damage.


def damaged(content, random):
    """One flipped byte per kilobyte, a single one, or a cut."""
    way = random.integers(3)
    if way == 0:
        return content[: random.integers(len(content))]
    changed = bytearray(content)
    count = 1 if way == 1 else max(len(content) // 1024, 1)
    for place in random.integers(len(content), size=count):
        changed[place] ^= random.integers(1, 256)
    return bytes(changed)


def fuzz(count, folder):
    """Damage files in both formats; count the ways in which they were answered."""
    random = np.random.default_rng(2026)
    windows = torch.randn(2, 4, 14, 14, generator=torch.Generator().manual_seed(0))
    files = {
        legacy: write(small_checkpoint(), folder / f"{legacy}.pt", legacy=legacy)
        for legacy in (False, True)
    }
    expected = rc.load_network(files[False])(windows).detach()
    answers = {"error": 0, "same": 0, "other": 0}
    for number in range(count):
        legacy = bool(number % 2)
        path = folder / "damaged.pt"
        path.write_bytes(damaged(files[legacy].read_bytes(), random))
        message, network = None, None
        try:
            network = rc.load_network(path)
        except rc.RetinaCodecError as error:
            message = str(error)
        if message is not None:
            assert str(path) in message
            assert "\n" not in message
            assert len(message) < 1000
            answers["error"] += 1
            continue
        found = network(windows).detach()
        assert torch.isfinite(found).all()
        if not legacy:  # a checksum guards every number
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
        answers["same" if torch.equal(found, expected) else "other"] += 1
    return answers


def test_damage_is_an_error_or_does_not_matter(tmp_path):
    answers = fuzz(60, tmp_path)
    assert answers["error"] > 30
    assert sum(answers.values()) == 60


@pytest.mark.slow
def test_much_damage_is_an_error_or_does_not_matter(tmp_path):
    answers = fuzz(250, tmp_path)
    assert answers["error"] > 120
    assert answers["same"] > 0


# Pickles that would run something.


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class State:
    """Pickles as a torch module whose state is built by a call."""

    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return torch.nn.Linear, (1, 1), {"_parameters": self.call}


def evil(name, marker):
    write_marker = f"open({str(marker)!r}, 'w').close()"
    return {
        "system": Calls(os.system, f"touch {marker}"),
        "eval": Calls(eval, write_marker),
        "exec": Calls(exec, write_marker),
        "nested": Calls(OrderedDict, Calls(list, Calls(eval, write_marker))),
        "module": State(Calls(os.system, f"touch {marker}")),
        "import": Calls(__import__, "antigravity"),
        "getattr": Calls(getattr, 1, "real"),
        "tensor of itself": Calls(torch._utils._rebuild_tensor_v2, Calls(eval, write_marker)),
        "memory": Calls(bytearray, 2**33),
        "tensor": Calls(torch.Tensor, 2**33),
        "subclass": Calls(torch._tensor._rebuild_from_type_v2, eval, int, (write_marker,), None),
        "object array": Calls(np.dtype, "O", False, True),
    }[name]


NAMES = ["system", "eval", "exec", "nested", "module", "import", "getattr", "tensor of itself"]
NAMES += ["memory", "tensor", "subclass", "object array"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("place", ["hyps", "key", "whole"])
def test_nothing_in_a_file_runs(name, form, place, tmp_path):
    marker = tmp_path / "marker"
    thing = evil(name, marker)
    if place == "whole":
        checkpoint = thing
    elif place == "hyps":
        checkpoint = small_checkpoint()
        checkpoint["hyps"]["note"] = thing
    else:
        checkpoint = {(thing, 1): 2, **small_checkpoint()}
    path = tmp_path / "net.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(checkpoint, protocol=2))
    else:
        write(checkpoint, path, legacy=form == "legacy")
    with pytest.raises(rc.RetinaCodecError, match=r"net\.pt must be a checkpoint"):
        rc.load_network(path)
    assert not marker.exists()


def test_the_marker_would_be_made(tmp_path):
    """What these files do when a pickle is trusted, so that the test above can fail."""
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(evil("eval", marker)))
    assert marker.exists()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02cos\nsystem\n.", "os.system"),
        (b"\x80\x04K\x01.", "protocol 4"),
        (b"\x80\x02(lp0\n.", "LIST"),
        (b"\x80\x02}}K\x01s.", "key"),
        (b"\x80\x02K\x01K\x02.", "amid"),
        (b"\x80\x02)K\x01R.", "tuple of arguments|cannot be called"),
        (b"\x80\x02ccollections\nOrderedDict\n(]tR.", "with arguments"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "cannot be called"),
    ],
)
def test_steps_that_no_checkpoint_needs(program, message):
    with pytest.raises(rc.RetinaCodecError, match=message):
        follow(io.BytesIO(program))


def test_too_many_steps():
    with pytest.raises(rc.RetinaCodecError, match=r"more than \d+ steps"):
        follow(io.BytesIO(b"\x80\x02" + b"N" * 500_000 + b"."))


# Archives that lie.


def rebuilt(path, change=None, compression=zipfile.ZIP_STORED, more=()):
    """Write an archive anew with some members changed."""
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    for name in list(members):
        if change is not None:
            members[name] = change(name, members[name])
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, content in [*members.items(), *more]:
            target.writestr(name, content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed"),
        ({"more": [("net/../../x", b"")]}, "leads out"),
        ({"more": [("/x", b"")]}, "one folder"),
        ({"more": [("other/x", b"")]}, "one folder"),
        ({"more": [("net/constants.pkl", b"")]}, "TorchScript"),
        ({"change": lambda n, c: c[:-4] if n.endswith("data/0") else c}, "not its size"),
        ({"change": lambda n, c: c + b"N." if n.endswith("data.pkl") else c}, "behind its pickle"),
        ({"change": lambda n, c: b"big" if n.endswith("byteorder") else c}, "big-endian"),
    ],
)
def test_archives_that_lie(changes, message, tmp_path):
    path = write(small_checkpoint(), tmp_path / "net.pt")
    rebuilt(path)
    same(read_checkpoint(path), torch.load(path, weights_only=False))
    rebuilt(path, **changes)
    with pytest.raises(rc.RetinaCodecError, match=message):
        read_checkpoint(path)


def legacy_content(folder):
    return write(small_checkpoint(), folder / "net.pt", legacy=True).read_bytes()


def test_sizes_that_lie_in_the_older_format(tmp_path):
    content = legacy_content(tmp_path)
    path = tmp_path / "net.pt"
    for changed in (
        content + b"\0",
        content[:-1],
        content.replace((3).to_bytes(8, "little"), (2**40).to_bytes(8, "little"), 1),
        content.replace(b"K\x03N", b"\x8a\x06" + (2**40).to_bytes(6, "little") + b"N", 1),
    ):
        assert changed != content
        path.write_bytes(changed)
        with pytest.raises(rc.RetinaCodecError, match="must be a checkpoint"):
            read_checkpoint(path)


BOMBS = """
import resource, sys, time
from pathlib import Path
import retina_codec as rc
folder = Path(sys.argv[1])
from retina_codec.networks.checkpoints import load_network
slowest = 0
for path in sorted(folder.glob("*.pt")):
    start = time.monotonic()
    try:
        load_network(path)
        raise AssertionError(path)
    except rc.RetinaCodecError as error:
        assert len(str(error)) < 1000, path
    slowest = max(slowest, time.monotonic() - start)
status = Path("/proc/self/status")  # ru_maxrss would count the process that started this one
if status.exists():
    line = next(one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
    peak = float(line.split()[1])
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(slowest, peak / 2**20)
"""


def nest(depth):
    """A pickled tuple of two references to a tuple, and so on: 2**depth leaves in few bytes."""
    return b")" + b"".join(b"q%c(h%ch%ct" % (i, i, i) for i in range(depth))


@pytest.fixture
def bombs(tmp_path):
    """Deflated zeros, sizes of 2**40 and 2**35, tuples that double at every step, a hole."""
    deflated = tmp_path / "deflated.pt"
    with zipfile.ZipFile(write(small_checkpoint(), deflated)) as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(name, bytes(2**26) if name.endswith("data/0") else content)
    assert deflated.stat().st_size < 2**17
    content = write(small_checkpoint(), tmp_path / "claims.pt", legacy=True).read_bytes()
    for name, count in {"claims": 2**40, "claims less": 2**35}.items():
        size = b"\x8a\x06" + count.to_bytes(6, "little") + b"N"
        (tmp_path / f"{name}.pt").write_bytes(content.replace(b"K\x03N", size, 1))
    for name, program in {
        "doubling key": b"}" + nest(60) + b"K\x01s",
        "doubling set": b"c__builtin__\nset\n(](" + nest(60) + b"etR",
        "doubling value": b"}X\x0a\x00\x00\x00model_type" + nest(60) + b"s",
        "deep": b"}X\x04\x00\x00\x00hyps" + b"]" * 100_000 + b"a" * 99_999 + b"s",
        "long": b"}" + b"X\x01\x00\x00\x00aNs" * 3_000_000,
    }.items():
        with zipfile.ZipFile(tmp_path / f"{name}.pt", "w") as target:
            target.writestr("net/data.pkl", b"\x80\x02" + program + b".")
    (tmp_path / "hole.pt").touch()
    os.truncate(tmp_path / "hole.pt", 2**36)
    return sorted(tmp_path.glob("*.pt"))


def test_bombs_are_refused(bombs):
    assert len(bombs) == 9
    for path in bombs:
        with pytest.raises(rc.RetinaCodecError) as caught:
            rc.load_network(path)
        assert len(str(caught.value)) < 1000


@pytest.mark.slow
def test_bombs_cost_neither_time_nor_memory(bombs):
    """Each under 10 s, all under 1 GiB."""
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, str(bombs[0].parent)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    slowest, gigabytes = map(float, done.stdout.split())
    assert slowest < 10
    assert gigabytes < 1
