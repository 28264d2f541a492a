"""Put embeddings in place of inputs that are words by number, so that paths between inputs exist.

Words are followed from the input to the embedding that takes them, in one pass.

Notation: b inputs, d dimensions.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from retina_codec.errors import RetinaCodecError

__all__ = [
    "PREFIX",
    "Entry",
    "EntrySearch",
    "Place",
    "embedded",
    "input_name",
    "mean_embedding",
    "place_embeddings",
]

PREFIX = "embedding of "  # then the name of the module; no argument of a function is called so


STILL = "still "  # then dtype and name of a floating input that no path changes, as its bits


UNNAMED = ""  # a single tensor, among inputs by name


# Parts of the names of arguments that are no words, where the network does not name its embedding.
NO_WORDS = {"position", "positions", "pos", "type", "types", "segment", "segments"}


MASKS = {"mask", "masks"}


CHUNK = 4096  # words that are looked up at a time


BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


Inputs = torch.Tensor | dict[str, torch.Tensor]


@dataclass(frozen=True)
class Place:
    """Calls of an embedding that are given the same words.

    Parameters
    ----------
    name : str
        Of the module.
    calls : tuple of int
        Which of its calls in one pass, counted from 1.
    axis : int, optional
        Which axis of its output counts inputs; None where inputs follow each other along the first.
    words : tuple of str
        Names of the inputs that it is given.
    """

    name: str
    calls: tuple[int, ...] = (1,)
    axis: int | None = 0
    words: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name of its output among inputs by name; `read` turns it back into a place."""
        calls = "" if self.calls == (1,) else "@" + "+".join(map(str, self.calls))
        axis = "" if self.axis == 0 else " (flat)" if self.axis is None else f" (axis {self.axis})"
        return f"{PREFIX}{self.name}{calls}{axis}"

    @classmethod
    def read(cls, key: str) -> "Place":
        """Return the place with a key."""
        found = re.fullmatch(
            re.escape(PREFIX) + r"(.*?)(?:@([\d+]+))?(?: \((?:axis (\d+)|flat)\))?", key
        )
        if found is None:
            raise RetinaCodecError(f"an embedding must be named {PREFIX}<module>; got {key!r}.")
        calls = tuple(map(int, (found[2] or "1").split("+")))
        flat = key.endswith(" (flat)")
        return cls(found[1], calls, None if flat else int(found[3] or 0))

    def inputs_first(self, output: torch.Tensor, count: int) -> torch.Tensor:
        """Return an output of the embedding with inputs along the first axis, (b, ..., d)."""
        if self.axis is None:
            if len(output) % count:
                self._refuse()
            return output.reshape(count, -1, *output.shape[1:])
        moved = output.movedim(self.axis, 0) if self.axis < output.ndim else self._refuse()
        return moved if len(moved) == count else self._refuse()

    def as_output(self, values: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Return values with inputs along the first axis in the shape of an output."""
        if values.numel() != output.numel():
            self._refuse()
        turned = values.movedim(0, self.axis) if self.axis else values
        return turned.clone().view(output.shape)  # the network may overwrite it

    def _refuse(self) -> torch.Tensor:
        raise RetinaCodecError(
            f"the embedding {self.name!r} must be given the words of every input in the same way; "
            "for some inputs it is called otherwise than for the first. Pass embeddings as "
            "inputs, or use ActGrad()."
        )


@dataclass(frozen=True)
class Entry:
    """Where paths between inputs lead: through which embeddings, and which inputs stand still.

    Parameters
    ----------
    places : tuple of Place
    still : tuple of str
        Floating inputs that no path changes, such as masks.
    doubt : str
        Why no path is known although there could be one; methods that need a path say it.
    """

    places: tuple[Place, ...] = ()
    still: tuple[str, ...] = ()
    doubt: str = ""

    def describe(self) -> dict[str, str]:
        """Return what results say of it; nothing where paths lead through the inputs themselves."""
        found = [PREFIX + place.name for place in self.places]
        if len(found) > 1:
            found = [f"{PREFIX}{place.name} ({', '.join(place.words)})" for place in self.places]
        found = list(dict.fromkeys(found))
        about = {"paths_in": ", ".join(found), "held_still": ", ".join(self.still)}
        return {key: text for key, text in about.items() if text}

    def enter(self, module: nn.Module, inputs: Inputs) -> Inputs:
        """Return inputs that a path can lead to; the same object where nothing changes."""
        if not self.places and not self.still:
            return inputs
        if not isinstance(inputs, torch.Tensor):
            if any(key.startswith((PREFIX, STILL)) for key in inputs):
                return inputs
            inputs = {
                (f"{STILL}{_text(values)} {name}" if name in self.still else name): (
                    values.view(BITS[values.element_size()]) if name in self.still else values
                )
                for name, values in inputs.items()
            }
        return embedded(module, self.places, inputs) if self.places else inputs


class EntrySearch:
    """Follow the first input through one run, to find where paths between inputs lead.

    Words enter through the embedding that the module names itself (``get_input_embeddings()``), or
    else through every `torch.nn.Embedding` that is given them; masks stand still, and so do
    positions and types of tokens beside words. Within `following`, run the module on copies of the
    inputs; then ask for the `entry`.

    Parameters
    ----------
    module : torch.nn.Module
    inputs : torch.Tensor or dict of torch.Tensor
        Of which the first is run.
    paths : sequence of str, optional
        Names of the inputs that paths lead through; told by the module when left out.

    Raises
    ------
    RetinaCodecError
        If ``paths`` names an input that is unknown.
    """

    def __init__(
        self, module: nn.Module, inputs: Inputs, paths: Sequence[str] | None = None
    ) -> None:
        named = {UNNAMED: inputs} if isinstance(inputs, torch.Tensor) else dict(inputs)
        self._named = {name: values[:1] for name, values in named.items()}
        self._floating = [n for n, values in self._named.items() if values.is_floating_point()]
        self._module, self._paths = module, paths
        unknown = sorted(set(paths or ()) - set(named))
        if unknown:
            raise RetinaCodecError(
                f"paths must name inputs of the network, {[n for n in named if n]}; got {unknown}. "
                "Leave these out."
            )
        self._calls: list[_Call] = []
        self._looked_up: set[str] = set()
        self._made: dict[tuple[str, int], torch.Tensor] = {}

    @contextmanager
    def following(self) -> Iterator[Inputs]:
        """Yield copies of the first input, which the module is to be run on within the context.

        Floating inputs and what embeddings give become leaves of the graph of derivatives.
        """
        # Copies, because inputs may share memory, by which they are recognised.
        copies = {
            name: values.detach().clone().requires_grad_(values.is_floating_point())
            for name, values in self._named.items()
        }
        self._leaves = {name: copies[name] for name in self._floating}
        trace, counts = _Trace(copies), Counter[str]()

        def note(name: str) -> Callable[..., torch.Tensor]:
            def called(
                embedding: Any, given: Any, by_name: Mapping[str, Any], output: torch.Tensor
            ) -> torch.Tensor:
                counts[name] += 1
                numbers = given[0] if given else next(iter(by_name.values()), None)
                sources = trace.sources(numbers)
                if sources and numbers is not None:
                    call = _Call(name, counts[name], sources, numbers, _table(embedding))
                    self._calls.append(call)
                made = output.detach().requires_grad_()
                self._made[name, counts[name]] = made
                return made.clone()

            return called

        handles = [
            inner.register_forward_hook(note(name), with_kwargs=True, prepend=True)
            for name, inner in self._module.named_modules()
            if isinstance(inner, nn.Embedding)
        ]
        whole = len(self._floating) < len(copies)
        try:
            with trace if whole and (handles or self._floating) else nullcontext():
                # Copies once more, because the module may overwrite what it is given.
                given = {name: values.clone() for name, values in copies.items()}
                yield given[UNNAMED] if UNNAMED in given else given
        finally:
            for handle in handles:
                handle.remove()
        known = {name for call in self._calls for name in call.sources}
        self._looked_up = {n for n in trace.looked_up - known if not _names_no_words(n)}

    def entry(self) -> Entry:
        """Return where paths lead, as the run showed it.

        Raises
        ------
        RetinaCodecError
            If ``paths`` names whole numbers that no embedding takes.
        """
        named, floating, looked_up = self._named, self._floating, self._looked_up
        if self._paths is not None:
            return _chosen(self._calls, self._paths, floating, named)
        words, said = _words(self._module, self._calls)
        still = [name for name in floating if _parts(name) & MASKS]
        if not words and not looked_up:
            return Entry(still=tuple(still) if len(named) > len(still) else ())
        still += [name for name in floating if name not in still and _parts(name) & NO_WORDS]
        moving = [name for name in floating if name not in still]
        main = getattr(type(self._module), "main_input_name", None)
        if main in moving:  # a network of transformers says so: speech or pictures, not words
            return Entry(still=tuple(still))
        doubt = _doubt(words, said, moving, looked_up)
        return Entry(() if doubt else _places(words), tuple(still), doubt)

    def leaves(self, entry: Entry) -> list[torch.Tensor]:
        """Return where the graph of the run begins on paths: inputs, and outputs of embeddings.

        Those of all embeddings where no other input moves.
        """
        found = [values for name, values in self._leaves.items() if name not in entry.still]
        found += [
            self._made[place.name, call]
            for place in entry.places
            for call in place.calls
            if (place.name, call) in self._made
        ]
        return found or list(self._made.values())


def embedded(module: nn.Module, places: Iterable[Place], inputs: Inputs) -> dict[str, torch.Tensor]:
    """Return whole numbers with their embeddings ``(b, token, d)`` beside them.

    Parameters
    ----------
    module : torch.nn.Module
    places : iterable of Place
        As `EntrySearch.entry` returns them.
    inputs : torch.Tensor or dict of torch.Tensor

    Returns
    -------
    dict of torch.Tensor
        The inputs, and every ``place.key``.
    """
    named = {UNNAMED: inputs} if isinstance(inputs, torch.Tensor) else dict(inputs)
    count, kept = len(next(iter(named.values()))), {}
    wanted = {(place.name, place.calls[0]): place for place in places}

    def keep(name: str, call: int, output: torch.Tensor) -> None:
        place = wanted.get((name, call))
        if place is not None:
            kept[place.key] = place.inputs_first(output, count)
            if len(kept) == len(wanted):
                raise _Reached

    try:
        with torch.no_grad(), _calls_of(module, {name for name, _ in wanted}, keep):
            with place_embeddings(module, named) as given:
                module(**given) if isinstance(given, dict) else module(given)
    except _Reached:
        pass
    for place in wanted.values():
        if place.key not in kept:
            place._refuse()
    return {**named, **kept}


@contextmanager
def place_embeddings(module: nn.Module, inputs: Inputs) -> Iterator[Inputs]:
    """Yield the inputs without embeddings, which their modules return within the context.

    Parameters
    ----------
    module : torch.nn.Module
    inputs : torch.Tensor or dict of torch.Tensor
        As `Entry.enter` returns them, or without embeddings, which changes nothing.

    Yields
    ------
    torch.Tensor or dict of torch.Tensor
        What the module takes.
    """
    if isinstance(inputs, torch.Tensor):
        yield inputs
        return
    rest: dict[str, torch.Tensor] = {}
    placed: dict[tuple[str, int], tuple[Place, torch.Tensor]] = {}
    for key, values in inputs.items():
        if key.startswith(PREFIX):
            place = Place.read(key)
            placed |= {(place.name, call): (place, values) for call in place.calls}
        elif key.startswith(STILL):
            _, kind, name = key.split(" ", 2)
            rest[name] = values.view(getattr(torch, kind))
        else:
            rest[key] = values

    def give(name: str, call: int, output: torch.Tensor) -> torch.Tensor | None:
        if (name, call) not in placed:
            return None
        place, values = placed[name, call]
        return place.as_output(values, output)

    with _calls_of(module, {name for name, _ in placed}, give):
        yield rest[UNNAMED] if UNNAMED in rest else rest


def mean_embedding(module: nn.Module, places: Iterable[Place]) -> dict[str, torch.Tensor]:
    """Return the mean over the vocabulary of what the embedding of every place gives.

    Parameters
    ----------
    module : torch.nn.Module
    places : iterable of Place
        As `EntrySearch.entry` returns them.

    Returns
    -------
    dict of torch.Tensor
        By ``place.key``, each (d,) in double precision, on the CPU.

    Raises
    ------
    RetinaCodecError
        If an embedding cannot look up words one by one.
    """
    return {place.key: _mean_row(module.get_submodule(place.name), place) for place in places}


def _mean_row(embedding: Any, place: Place) -> torch.Tensor:
    device, count = next(embedding.parameters()).device, embedding.num_embeddings
    total: Any = 0
    try:
        with torch.no_grad():
            for words in torch.split(torch.arange(count, device=device), CHUNK):
                rows = embedding(words[None])  # as the network does: some scale what they look up
                total = total + rows.reshape(len(words), -1).cpu().double().sum(0)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise RetinaCodecError(
            f"the mean embedding is known where the embedding takes words alone; {place.name!r} "
            f"does not ({type(error).__name__}: {(str(error).splitlines() or [''])[0]}). Give one "
            f"row (d,) as baseline={{{place.key!r}: row}}."
        ) from error
    mean: torch.Tensor = total / count
    return mean


def input_name(key: str) -> str:
    """Return the name of the argument that a tensor of an entered point is."""
    return key.split(" ", 2)[2] if key.startswith(STILL) else key


class _Reached(Exception):
    """All embeddings have been called; nothing above them is needed."""


@contextmanager
def _calls_of(
    module: nn.Module, names: Iterable[str], see: Callable[[str, int, torch.Tensor], Any]
) -> Iterator[None]:
    """Call ``see(name, call, output)`` after every call of some modules, before other hooks.

    What it returns goes on in the place of the output, so that who watches the embedding sees it.
    """
    counts: Counter[str] = Counter()

    def after(name: str) -> Callable[..., Any]:
        def called(inner: nn.Module, given: Any, output: torch.Tensor) -> Any:
            del inner, given
            counts[name] += 1
            return see(name, counts[name], output)

        return called

    handles = [
        module.get_submodule(name).register_forward_hook(after(name), prepend=True)
        for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _Call:
    """A call of an embedding with numbers that come from inputs."""

    name: str
    number: int
    sources: frozenset[str]
    given: torch.Tensor
    table: int  # its identity

    @property
    def same(self) -> Any:
        """What is equal for calls that are given the very same numbers."""
        where = (self.given.data_ptr(), self.given.shape, self.given.stride())
        return self.name, where, self.given._version


# Steps of torch (without trailing _) whose result still holds the numbers of its first arguments.
PASSING = {
    "_to_copy", "clone", "copy", "cat", "stack", "index", "index_select", "gather", "take",
    "take_along_dim", "add", "sub", "rsub", "mul", "div", "floor_divide", "remainder", "fmod",
    "clamp", "clamp_min", "clamp_max", "minimum", "maximum", "where", "masked_fill",
    "masked_scatter", "masked_select", "flip", "roll", "repeat", "constant_pad_nd", "scatter",
    "slice_scatter", "select_scatter", "index_put", "index_copy", "index_fill", "_unsafe_index",
    "bitwise_and", "bitwise_or", "bitwise_xor", "tril", "triu", "repeat_interleave", "lift_fresh",
}  # fmt: skip


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follow whole numbers from the inputs through copies, cuts, shifts and sums.

    Views share their memory. Comparisons give truth values, which are followed no further: a mask
    or a position counted from it is no word.
    """

    def __init__(self, inputs: Mapping[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sources: dict[int, frozenset[str]] = {}
        self._kept: list[torch.Tensor] = []  # so that no other tensor gets their memory
        self.looked_up: set[str] = set()
        for name, values in inputs.items():
            if _is_whole(values):
                self._mark(values, frozenset([name]))

    def sources(self, values: Any) -> frozenset[str]:
        """Return the inputs that a tensor of whole numbers comes from."""
        if not _is_whole(values):
            return frozenset()
        return self._sources.get(values.untyped_storage().data_ptr(), frozenset())

    def _mark(self, values: Any, sources: frozenset[str]) -> None:
        if _is_whole(values) and sources and values.numel():
            place = values.untyped_storage().data_ptr()
            self._sources[place] = self._sources.get(place, frozenset()) | sources
            self._kept.append(values)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run a step, and mark what holds the numbers of an input."""
        del types
        output = function(*args, **(kwargs or {}))
        step = str(function.overloadpacket).rpartition(".")[2]
        if "embedding" in step and "backward" not in step:
            self.looked_up |= self.sources(args[1])
        elif step.rstrip("_") in PASSING:
            parts = [part for arg in args for part in (arg if isinstance(arg, list) else [arg])]
            first = self.sources(parts[0]) if parts else frozenset()
            if not first or not step.startswith(("index", "gather", "take", "_unsafe_index")):
                first = first.union(*map(self.sources, parts))
            self._mark(output, first)
        return output


def _is_whole(values: Any) -> bool:
    return (
        isinstance(values, torch.Tensor)
        and values.layout == torch.strided
        and values.dtype != torch.bool
        and not values.is_floating_point()
        and not values.is_complex()
    )


def _words(module: nn.Module, calls: Sequence[_Call]) -> tuple[list[_Call], set[int]]:
    """Return the calls that are given words, and the tables that the module says are of words."""
    said, speaking = set(), []
    for name, inner in module.named_modules():
        named = _own_embeddings(inner)
        if named:
            said |= named
            speaking.append(f"{name}." if name else "")
    words = [
        call
        for call in calls
        if call.table in said
        or (
            not any(call.name.startswith(name) for name in speaking)
            and not all(map(_names_no_words, call.sources))
        )
    ]
    return words, said


def _own_embeddings(module: nn.Module) -> set[int]:
    """Return the tables that a module names as those of its words, by identity."""
    ask = getattr(type(module), "get_input_embeddings", None)
    if not callable(ask):
        return set()
    try:
        found = ask(module)
    except Exception:  # a module may have the method without such a table
        return set()
    inner = found.modules() if isinstance(found, nn.Module) else ()
    return {_table(one) for one in inner if isinstance(one, nn.Embedding)}


def _table(embedding: nn.Module) -> int:
    """Return the identity of a table: tied modules share their weight."""
    weight = embedding._parameters.get("weight")
    return id(embedding if weight is None else weight)


def _chosen(
    calls: Sequence[_Call],
    paths: Sequence[str],
    floating: Sequence[str],
    named: Mapping[str, torch.Tensor],
) -> Entry:
    """Return the entry through the inputs that were named."""
    taken = {name for call in calls for name in call.sources}
    lost = [name for name in paths if name not in floating and name not in taken]
    if lost or not paths:
        raise RetinaCodecError(
            "paths must name floating inputs, or whole numbers that an embedding "
            f"(torch.nn.Embedding) of the network takes; got {lost or list(paths)}. There are "
            f"{[name for name in named if name in floating or name in taken]}."
        )
    some = [call for call in calls if call.sources & set(paths)]
    return Entry(_places(some), tuple(name for name in floating if name not in paths))


def _doubt(
    words: Sequence[_Call], said: set[int], floating: Sequence[str], looked_up: set[str]
) -> str:
    """Say why it cannot be known which inputs paths lead through; empty if it can."""
    whole = sorted({name for call in words for name in call.sources} | looked_up)
    choices = " or ".join(f"paths={[name]!r}" for name in [*floating[:1], *whole[:2]][:2])
    way_out = (
        f"Name those of the paths, adapt(network, ..., {choices}); the others stand still. "
        "ActGrad() needs no path."
    )
    if floating:
        return (
            f"paths could lead through words ({', '.join(whole)}) or through floating inputs "
            f"({', '.join(floating)}), and the network does not say which. {way_out}"
        )
    tables = {call.table for call in words}
    if len(tables) > 1 and not tables <= said and len(whole) > 1:
        return (
            f"paths could lead through several inputs that are looked up in different tables "
            f"({', '.join(whole)}), and the network does not say which are words. {way_out}"
        )
    return ""


def _places(calls: Sequence[_Call]) -> tuple[Place, ...]:
    """Join the calls that are given the very same numbers."""
    found: dict[Any, list[_Call]] = {}
    for call in calls:
        found.setdefault(call.same, []).append(call)
    return tuple(
        Place(
            some[0].name,
            tuple(call.number for call in some),
            next((a for a, size in enumerate(some[0].given.shape) if size == 1), None),
            tuple(sorted(some[0].sources)),
        )
        for some in found.values()
    )


def _names_no_words(name: str) -> bool:
    return bool(_parts(name) & (NO_WORDS | MASKS))


def _parts(name: str) -> set[str]:
    """Return the words in the name of an argument, in small letters."""
    return set(re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower().split("_"))


def _text(values: torch.Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
