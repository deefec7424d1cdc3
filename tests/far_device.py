"""A device that is not there: numbers that say they lie elsewhere, so that a mix-up shows on a machine without a GPU.

Inside of ``far_away()`` a tensor moved to `FAR` keeps its numbers and reports that device. As on a GPU, an operation
that meets numbers of both sides fails, but for single numbers and positions to look up; so does drawing far numbers by
a generator that is near. PyTorch's name for the device is ``meta``, the one that autograd can pass through everywhere.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from xshot_bench.methods.task import Pixels

FAR = torch.device("meta")
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)  # what may go from one side to the other


class Far(Tensor):
    """A tensor that is elsewhere; its numbers are in ``near``."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype, device=FAR
        )
        made.near = near
        return made

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"Far({self.near!r})"

    def tolist(self) -> Any:
        return self.near.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


@contextmanager
def far_away(device: torch.device = FAR) -> Iterator[None]:
    """Here `FAR` can be computed on; another device needs nothing."""
    if device != FAR:
        yield
        return
    with _Literals(), _Everything():
        yield


def moved(value: Any, device: torch.device = FAR) -> Any:
    """A tensor, or a dataclass of them, on the device; pictures stay where they are stored until they are read."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Pixels):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: moved(getattr(value, field.name), device) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    return value


def moved_weights(module: nn.Module, device: torch.device = FAR) -> nn.Module:
    """A copy of a module whose weights are on the device."""
    found = copy.deepcopy(module)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        return found._apply(lambda weight: weight.to(device))
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


class _Everything(TorchDispatchMode):
    """Reaches operations without far tensors as well: those that make some."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """``torch.tensor(numbers, device=...)`` is no operation; here it becomes a copy."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") is not None:
            return func(*args, **(kwargs | {"device": "cpu"})).to(kwargs["device"])
        return func(*args, **kwargs)


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
    from_far = any(isinstance(tensor, Far) for tensor in given)
    device = kwargs.get("device")
    to_far = from_far if device is None else torch.device(device) == FAR
    if func is torch.ops.aten.copy_.default:
        to_far = isinstance(args[0], Far)
    if from_far and func not in COPIES and not func.__name__.startswith("index"):
        near = [tuple(tensor.shape) for tensor in given if not isinstance(tensor, Far) and tensor.ndim]
        if near:
            raise RuntimeError(f"{func}: operands of shapes {near} are on the CPU, others are not")
    if to_far and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: a generator of the CPU cannot draw numbers elsewhere")
    here = kwargs if device is None else kwargs | {"device": "cpu"}
    found = func(*tree_map(_near, args), **tree_map(_near, here))
    if not to_far:
        return found
    found = tree_map(lambda part: Far(part) if isinstance(part, Tensor) else part, found)
    return return_and_correct_aliasing(func, args, kwargs, found) if from_far else found


def _near(value: Any) -> Any:
    return value.near if isinstance(value, Far) else value
