"""A fitted method in one safetensors file: its tensors, and in the file's metadata a JSON skeleton of all the rest.

The skeleton holds numbers, strings and None as they are; a tensor is ``{"tensor": name}``, tuples, lists and dicts are
``{"tuple": [...]}``, ``{"list": [...]}``, ``{"dict": [[key, value], ...]}``, and an object of a known class (a
dataclass, a network) is ``{"class": "module:name", "state": [[attribute, value], ...]}``. Known are the classes of the
method's own package, of ``xshot_bench.methods`` and of ``torch.nn.modules``: no other code can be reached from a file.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from xshot_bench import InputError

if TYPE_CHECKING:
    from xshot_bench.methods.base import Method

M = TypeVar("M", bound="Method")
OWN = ("xshot_bench.methods", "torch.nn.modules")
MODULE_STATE = ("training", "_parameters", "_buffers", "_modules")


def save(method: Method, path: Path) -> None:
    """Write the method's parameters and what it has learnt. TypeError for an attribute of another kind."""
    writer = _Writer(type(method).__module__)
    skeleton = {"method": type(method).__qualname__, "state": writer.items(vars(method))}
    save_file(writer.tensors, path, metadata={"skeleton": json.dumps(skeleton)})


def load(cls: type[M], path: Path, device: str = "cpu") -> M:
    """The method that ``save`` wrote. `InputError` if the file is no such file, or another method's."""
    try:
        with safe_open(path, framework="pt", device=device) as file:
            skeleton = json.loads((file.metadata() or {})["skeleton"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if skeleton["method"] != cls.__qualname__:
            raise InputError(f"{path} holds a {skeleton['method']}, not a {cls.__qualname__}. Load it with that class.")
        method = object.__new__(cls)
        vars(method).update(_Reader(cls.__module__, tensors).items(skeleton["state"]))
    except (OSError, SafetensorError, LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a saved method ({error}). Give a file that Method.save wrote.") from None
    return method


class _Writer:
    """Turns values into the skeleton, and collects the tensors; one met twice is stored once.

    module: where the method's class is; it is left out of the file, for a plugin's may differ from run to run.
    """

    def __init__(self, module: str) -> None:
        self.module = module
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[int, str] = {}

    def items(self, attributes: dict[Any, Any]) -> list[list[Any]]:
        return [[self.value(key), self.value(value)] for key, value in attributes.items()]

    def value(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Tensor):
            return {"tensor": self._name(value)}
        if isinstance(value, tuple | list):
            return {"tuple" if isinstance(value, tuple) else "list": [self.value(part) for part in value]}
        if isinstance(value, dict):
            return {"dict": self.items(value)}
        cls, state = type(value), vars(value) if hasattr(value, "__dict__") else {}
        if not _is_known(cls.__module__, self.module):
            raise TypeError(
                f"a {cls.__name__} cannot be saved: keep tensors, numbers, strings, tuples, lists, dicts, or objects "
                "made of these whose classes are of your method's own package"
            )
        if isinstance(value, nn.Module):  # without its hooks, which are code
            hooks = vars(nn.Module()).keys() - set(MODULE_STATE)
            state = {key: part for key, part in state.items() if key not in hooks}
        where = "" if cls.__module__ == self.module else cls.__module__
        return {"class": f"{where}:{cls.__qualname__}", "state": self.items(state)}

    def _name(self, tensor: Tensor) -> str:
        name = self._names.setdefault(id(tensor), str(len(self._names)))
        if name not in self.tensors:
            self.tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        return name


class _Reader:
    """Makes the values again, tensors without gradients."""

    def __init__(self, module: str, tensors: dict[str, Tensor]) -> None:
        self.module, self.tensors = module, tensors

    def items(self, pairs: list[list[Any]]) -> dict[Any, Any]:
        return {self.value(key): self.value(value) for key, value in pairs}

    def value(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "class" in value:
            return self._object(value["class"], value["state"])
        ((kind, content),) = value.items()
        if kind == "tensor":
            return self.tensors[content]
        if kind == "dict":
            return self.items(content)
        parts = [self.value(part) for part in content]
        return tuple(parts) if kind == "tuple" else parts

    def _object(self, name: str, state: list[list[Any]]) -> object:
        where, _, qualname = name.partition(":")
        where = where or self.module
        found: Any = None
        if _is_known(where, self.module):
            found = importlib.import_module(where)
            for part in qualname.split("."):
                found = getattr(found, part, None)
        if not isinstance(found, type) or found.__module__ != where:
            raise InputError(f"a saved method names the class {name}, which this version of the method does not have.")
        made: Any = object.__new__(found)
        if isinstance(made, nn.Module):
            nn.Module.__init__(made)
        vars(made).update(self.items(state))
        return made


def _is_known(module: str, own: str) -> bool:
    return any(f"{module}.".startswith(f"{known}.") for known in (own.partition(".")[0], *OWN))
