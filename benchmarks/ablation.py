"""Variants of a method, by its switches (``flexclip:nogen``) and parameters (``flexclip{pseudo=50}``), and series."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast

from pydantic import TypeAdapter, ValidationError

from xshot_bench import InputError
from xshot_bench.benchmarks.registry import Registry
from xshot_bench.methods.base import Method

Group = Literal["methods", "ablation", "sweep"]


@dataclass(frozen=True)
class Variant:
    """A method as asked for: ``name`` is ``plugin``, ``plugin:switch+switch`` or ``plugin{parameter=value}``.

    overrides: its parameters. group: the table it belongs to, an ablation's or a sweep's rows being compared with the
    variant ``reference``. also: other names of the same configuration.
    """

    name: str
    plugin: str
    overrides: Mapping[str, Any]
    group: Group = "methods"
    reference: str = ""
    also: tuple[str, ...] = ()

    def build(self, registry: Registry) -> Method:
        """An unfitted instance with its parameters checked; `InputError` names the bad one."""
        cls = cast("type[Method]", registry.load("method", self.plugin))
        known = [field.name for field in fields(cast("Any", cls))]  # not what it declares as ClassVar
        for parameter in self.overrides:
            if parameter not in known:
                hint = _suggest(parameter, known) if known else "It has none."
                raise InputError(f"the method {self.plugin!r} has no parameter {parameter!r}. {hint}")
        try:
            method = TypeAdapter(cls).validate_python(dict(self.overrides))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(
                f"the method {self.plugin!r} cannot take {where}={first['input']!r}: {first['msg'].lower()}."
            ) from None
        for parameter, value in method.parameters().items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"the method {self.plugin!r} cannot take {parameter}={value}: it is no finite number.")
        return method


def parse_variant(registry: Registry, text: str, settings: Mapping[str, Mapping[str, str]]) -> Variant:
    """``flexclip:nogen+posterior{steps=50}`` -> its overrides; over ``settings``, the user's own per method, go those
    in braces.
    """
    head, brace, inside = text.strip().partition("{")
    name, colon, switches = head.strip().partition(":")
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
    if brace:
        own = _in_braces(text, inside)
        overrides |= own
        label += "{" + ",".join(f"{key}={value}" for key, value in own.items()) + "}"
    return Variant(label, entry.name, overrides)


def tuned_name(variant: Variant) -> str:
    """What a variant is called once parameters were found for it: ``ridge:tuned``, ``flexclip:nogen+tuned``."""
    head, brace, inside = variant.name.partition("{")
    return f"{head}{'+' if ':' in head else ':'}tuned{brace}{inside}"


def ablation(registry: Registry, name: str, settings: Mapping[str, Mapping[str, str]]) -> list[Variant]:
    """What ``--ablate name`` asks for: the full method, and what is to be compared with it.

    Of the n components that the method declares, each one off, each alone, and all off; then every other switch.
    """
    entry = registry.entry("method", name)
    cls = cast("type[Method]", registry.load("method", entry.name))
    if not cls.ablations:
        raise InputError(f"the method {entry.name!r} declares no switches, so there is nothing to ablate.")
    parts = cls.components
    off = [(part,) for part in parts]
    alone = [tuple(other for other in parts if other != part) for part in parts] if len(parts) > 1 else []
    others = [(switch,) for switch in cls.ablations if switch not in parts]
    asked = dict.fromkeys([*off, *alone, *([parts] if parts else []), *others])
    rows = [parse_variant(registry, f"{entry.name}:{'+'.join(switches)}", settings) for switches in asked]
    full = parse_variant(registry, entry.name, settings)
    return [full, *(replace(row, group="ablation", reference=full.name) for row in rows)]


def sweep(registry: Registry, text: str, settings: Mapping[str, Mapping[str, str]]) -> list[Variant]:
    """What ``--sweep flexclip.pseudo=50,100`` asks for: the method as it is, and with each value of the parameter."""
    target, equals, values = text.partition("=")
    name, dot, parameter = (part.strip() for part in target.rpartition("."))
    asked = [value.strip() for value in values.split(",")]
    if not (equals and dot and name and parameter and all(asked)):
        raise InputError(
            f"--sweep {text!r} was not understood. Expected: METHOD.PARAMETER=VALUE,VALUE,… as flexclip.pseudo=50,100."
        )
    plain = parse_variant(registry, name, settings)
    rows = [parse_variant(registry, f"{name}{{{parameter}={value}}}", settings) for value in asked]
    return [plain, *(replace(row, group="sweep", reference=plain.name) for row in rows)]


def distinct(registry: Registry, variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """One variant for each configuration: that named first, which bears the other names in ``also``.

    An ablation's row stays one where the same name was also asked for as a method.
    """
    ablated = {variant.name: variant for variant in variants if variant.group == "ablation"}
    found: dict[str, Variant] = {}
    for variant in (ablated.get(v.name, v) for v in variants):
        meaning = json.dumps([variant.plugin, variant.build(registry).parameters()], sort_keys=True)
        known = found.setdefault(meaning, variant)
        if variant.name not in (known.name, *known.also):
            found[meaning] = replace(known, also=(*known.also, variant.name))
    return tuple(found.values())


def _in_braces(text: str, inside: str) -> dict[str, str]:
    content, closed, rest = inside.partition("}")
    pairs = [part.partition("=") for part in content.split(",")]
    if not closed or rest.strip() or not all(equals and key.strip() and value.strip() for key, equals, value in pairs):
        raise InputError(f"the method {text!r} was not understood. Expected: NAME{{PARAMETER=VALUE}}.")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."
