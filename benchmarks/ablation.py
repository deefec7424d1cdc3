"""A method's declared switches -> variants: ``flexclip:nogen``, ``flexclip:nogen+nofusion``, all of ``--ablate``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from xshot_bench import InputError
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.methods.base import Method


@dataclass(frozen=True)
class Variant:
    """A method as asked for: ``name`` is ``plugin`` or ``plugin:switch+switch``; ``overrides`` are its parameters."""

    name: str
    plugin: str
    overrides: Mapping[str, Any]

    def build(self, registry: Registry) -> Method:
        """An unfitted instance with its parameters checked; `InputError` names the bad one."""
        cls = cast("type[Method]", registry.load("method", self.plugin))
        known = list(cls.__dataclass_fields__)  # type: ignore[attr-defined]
        for parameter in self.overrides:
            if parameter not in known:
                hint = _suggest(parameter, known) if known else "It has none."
                raise InputError(f"the method {self.plugin!r} has no parameter {parameter!r}. {hint}")
        try:
            return TypeAdapter(cls).validate_python(dict(self.overrides))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(
                f"the method {self.plugin!r} cannot take {where}={first['input']!r}: {first['msg'].lower()}."
            ) from None


def parse_variant(registry: Registry, text: str, settings: Mapping[str, Mapping[str, str]]) -> Variant:
    """``flexclip:nogen+posterior`` -> its overrides; ``settings`` are the user's own, per method."""
    name, colon, switches = text.strip().partition(":")
    entry = registry.entry("method", name)
    cls = cast("type[Method]", registry.load("method", entry.name))
    overrides: dict[str, Any] = {}
    asked = [switch.strip() for switch in switches.split("+")] if colon else []
    for switch in asked:
        if switch not in cls.ablations:
            declared = list(cls.ablations)
            hint = _suggest(switch, declared) if declared else "It has none."
            raise InputError(f"the method {entry.name!r} has no switch {switch!r}. {hint}")
        overrides |= cls.ablations[switch]
    overrides |= settings.get(entry.name, {})
    label = f"{entry.name}:{'+'.join(asked)}" if asked else entry.name
    return Variant(label, entry.name, overrides)


def ablation_variants(registry: Registry, name: str) -> list[str]:
    """What ``--ablate name`` asks for: the full method, and the method with each switch."""
    entry = registry.entry("method", name)
    cls = cast("type[Method]", registry.load("method", entry.name))
    if not cls.ablations:
        raise InputError(f"the method {entry.name!r} declares no switches, so there is nothing to ablate.")
    return [entry.name, *(f"{entry.name}:{switch}" for switch in cls.ablations)]


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."
