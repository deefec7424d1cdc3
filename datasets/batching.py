"""As many rows at once as memory holds."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from xshot_bench import InputError

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch", "Tensor", list[str])
Result = TypeVar("Result")
FULL = re.compile("out of memory|not enough memory|can't allocate memory|ALLOC_FAILED", re.IGNORECASE)


class Batching:
    """Calls a model on at most ``size`` rows at once, and on half as many from then on whenever memory runs out.

    fixed: the user chose the size, so that running out of memory is an `InputError`.
    """

    def __init__(self, size: int, fixed: bool = False) -> None:
        self.size, self.fixed = size, fixed

    def run(self, call: Callable[[Batch], Result], rows: Batch) -> Iterator[Result]:
        """The results of ``call`` for consecutive rows. What is done stays done when memory runs out later."""
        start = 0
        while start < len(rows):
            result = self._try(call, rows[start : start + self.size])
            if result is None:
                self._halve()
            else:
                yield result
                start += self.size

    def _try(self, call: Callable[[Batch], Result], rows: Batch) -> Result | None:
        """None where memory ran out; by then the failed call's own memory is free again."""
        try:
            return call(rows)
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and not FULL.search(str(error)):
                raise
            return None

    def _halve(self) -> None:
        import torch

        if self.fixed:
            raise InputError(f"memory ran out at --batch-size {self.size}. Give a smaller one, or auto.")
        if self.size == 1:
            raise InputError("memory ran out with a single row at once. Use another --device or a smaller encoder.")
        self.size //= 2
        logger.warning("memory ran out; from now on %d rows at once", self.size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
