"""Choices by name: those of the package, and those that installed packages add by entry points."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from retina_codec.errors import RetinaCodecError

__all__ = ["Registry"]

Item = TypeVar("Item")


class Registry(Generic[Item]):
    """Named choices of one kind: `list`, `get`, `register`.

    Parameters
    ----------
    kind : str
        What one choice is called in messages, such as ``"contribution method"``.
    group : str
        Entry-point group in which other packages name theirs, such as ``"retina_codec.methods"``.
    builtin : mapping of str to str
        Name to ``"module:attribute"``, imported when first asked for.
    check : callable, optional
        Called with (name, item) before it is taken; raises RetinaCodecError if it does not fit.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        builtin: Mapping[str, str],
        check: Callable[[str, Item], None] | None = None,
    ) -> None:
        self.kind = kind
        self.group = group
        self._places = dict(builtin)
        self._items: dict[str, Item] = {}
        self._check = check

    def list(self) -> list[str]:
        """Return all names, the package's own first, then those of other packages."""
        return list(dict.fromkeys([*self._places, *self._items, *self._installed()]))

    def get(self, name: str) -> Item:
        """Return the choice of this name.

        Parameters
        ----------
        name : str

        Returns
        -------
        object

        Raises
        ------
        RetinaCodecError
            If there is none of this name; the valid ones are listed, the closest first.
        """
        if name in self._items:
            return self._items[name]
        place = self._places.get(name) or self._installed().get(name)
        if place is None:
            valid = self.list()
            close = get_close_matches(str(name), valid, n=1, cutoff=0.5)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise RetinaCodecError(
                f"there is no {self.kind} {name!r}.{hint} Valid names: {', '.join(valid)}."
            )
        module, _, attribute = place.partition(":")
        try:
            item: Item = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise RetinaCodecError(
                f"the {self.kind} {name!r} must be importable from {place}; {error}. Install the "
                "package that provides it again, or remove it."
            ) from error
        # importing the module may have registered it already
        return self._items[name] if name in self._items else self._keep(name, item)

    def register(self, name: str, item: Item) -> Item:
        """Add a choice under a name.

        Parameters
        ----------
        name : str
            New, unless it replaces an item that was registered from the same module.
        item : object

        Returns
        -------
        object
            The item.

        Raises
        ------
        RetinaCodecError
            If the name is taken by another choice, or the item does not fit.
        """
        place = _place(item)
        known = self._items.get(name)
        taken = self._places.get(name) if known is None else _place(known)
        if taken is not None and taken != place:
            raise RetinaCodecError(
                f"the name of a {self.kind} must be new; {name!r} is {taken}. Choose another name."
            )
        return self._keep(name, item)

    def _keep(self, name: str, item: Item) -> Item:
        if self._check is not None:
            self._check(name, item)
        self._items[name] = item
        return item

    def _installed(self) -> dict[str, str]:
        """Return what installed packages name, without importing it."""
        return {entry.name: entry.value for entry in entry_points(group=self.group)}


def _place(item: object) -> str:
    return f"{getattr(item, '__module__', '')}:{getattr(item, '__qualname__', '')}"
