"""Settings of torch around a call that decide its numbers: part of what a run is."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch

__all__ = ["Context"]

KINDS = ("mkldnn", "cuda")  # kinds of device whose products can have a precision of their own


@dataclass(frozen=True)
class Context:
    """Settings of torch around a call that decide its numbers.

    They are autocast, the default dtype and the precision of float32 products. The number of
    threads, deterministic algorithms and benchmarks decide the last bits only, and are left out.
    """

    autocast: tuple[tuple[str, str], ...]  # kind of device, dtype; where it is on
    default_dtype: str
    float32_matmul_precision: str

    @classmethod
    def here(cls) -> Self:
        """Return the settings of the caller."""
        kinds = [kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.is_autocast_enabled(kind)]
        on = tuple((kind, _name(torch.get_autocast_dtype(kind))) for kind in kinds)
        return cls(on, _name(torch.get_default_dtype()), _precision())

    def describe(self) -> dict[str, str]:
        """Return the settings by name."""
        on = ", ".join(f"{kind} {dtype}" for kind, dtype in self.autocast)
        return {
            "autocast": on or "off",
            "default_dtype": self.default_dtype,
            "float32_matmul_precision": self.float32_matmul_precision,
        }

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Set torch as it was around the call, in another process, say."""
        before = type(self).here()
        if before == self:
            yield
            return
        with ExitStack() as stack:
            for kind, _ in before.autocast:
                stack.enter_context(torch.autocast(kind, enabled=False))
            for kind, dtype in self.autocast:
                stack.enter_context(torch.autocast(kind, dtype=getattr(torch, dtype)))
            try:
                self._set()
                yield
            finally:
                before._set()

    def _set(self) -> None:
        torch.set_default_dtype(getattr(torch, self.default_dtype))
        _set_precision(self.float32_matmul_precision)


def _name(value: Any) -> str:
    return str(value).removeprefix("torch.")


def _precision() -> str:
    """Return the precision of products: one word, or one for each kind of device."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set for one kind alone
        found: list[Any] = [getattr(torch.backends, kind).matmul for kind in KINDS]
        return ", ".join(matmul.fp32_precision for matmul in found)


def _set_precision(precision: str) -> None:
    if "," not in precision:
        torch.set_float32_matmul_precision(precision)
        return
    for kind, one in zip(KINDS, precision.split(", "), strict=True):
        getattr(torch.backends, kind).matmul.fp32_precision = one
