"""Floating point operations of a piece of work, by torch's own formulas.

Why this file exists: what a method should cost is counted, what it does cost is measured, and two
benchmarks compare the two.
"""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["Operations"]


class Operations(TorchDispatchMode):
    """Count floating point operations by torch's formulas, a product and a sum as two."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run one operation and count it."""
        found = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function._overloadpacket)
        if formula is not None:
            self.count += int(formula(*args, **(kwargs or {}), out_val=found))
        return found
