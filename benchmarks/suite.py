"""What to run: methods × datasets × shots × draws, from the command line's options or a TOML file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from xshot_bench import InputError
from xshot_bench.benchmarks.significance import Correction
from xshot_bench.datasets.splitting import Gallery, Protocol, Shots

SUITES = Path(__file__).parent / "suites"
DEFAULT = "default"


class Suite(BaseModel):
    """The question a table answers.

    methods: names, with switches after a colon and parameters in braces. ablate: a method to take apart. sweep: series
    of one parameter's values, as ``flexclip.pseudo=50,100``. datasets: names, with a class split after a slash.
    protocol: whose rules. shots: every X. draws: how many of the split's support draws. baseline: the method that
    differences are taken to. settings: method -> parameter -> value, from ``--set``. correction: over all hypotheses of
    the table. margin: the difference that matters, in mAP points. oracle: show the mAP of known labels.
    tuned: dataset -> variant, as ``ridge:tuned`` -> the parameters that ``--tune`` found for it there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: tuple[str, ...] = Field(min_length=1)
    ablate: str = ""
    sweep: tuple[str, ...] = ()
    datasets: tuple[str, ...] = Field(min_length=1)
    encoder: str = Field(min_length=1)
    protocol: Protocol = "xshot"
    shots: tuple[Shots, ...] = Field(min_length=1)
    draws: int = Field(ge=1)
    gallery: Gallery
    baseline: str = "clip"
    settings: dict[str, dict[str, Any]] = {}
    correction: Correction = "holm"
    margin: float = Field(default=0.5, ge=0, le=100)
    oracle: bool = False
    tuned: dict[str, dict[str, dict[str, Any]]] = {}

    @field_validator("methods", "datasets", "shots")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(values))

    @field_validator("shots")
    @classmethod
    def _not_negative(cls, values: tuple[Shots, ...]) -> tuple[Shots, ...]:
        for value in values:
            if value != "all" and value < 0:
                raise ValueError(f"{value} is negative")
        return values

    @classmethod
    def from_options(cls, options: Mapping[str, Any], file: str = DEFAULT) -> Suite:
        """The suite of a TOML file (a name in ``benchmarks/suites`` or a path), with the given options put over it.

        What neither says is as in the default suite.
        """
        given = {key: value for key, value in options.items() if value not in (None, (), {})}
        content: dict[str, Any] = {}
        for layer in (_read(DEFAULT), _read(file), given):
            content |= layer
            taken_apart = _taken_apart(layer)
            if taken_apart and "methods" not in layer:  # then they are all that is asked for
                content["methods"] = taken_apart
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
            where = ".".join(str(part) for part in first["loc"]) or "suite"
            if first["type"] == "extra_forbidden":
                close = difflib.get_close_matches(where, cls.model_fields, n=1)
                hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(cls.model_fields)}."
                raise InputError(f"the suite {file!r} has an unknown key {where[:80]!r}. {hint}") from None
            if first["type"] in ("too_short", "string_too_short"):
                raise InputError(f"the suite's {where!r} is empty. Expected: at least one.") from None
            message = first["msg"].removeprefix("Value error, ").lower()
            raise InputError(f"the suite's {where!r} is wrong: {message} (it is {first['input']!r:.200}).") from None


def _taken_apart(layer: Mapping[str, Any]) -> list[str]:
    """The methods of ``ablate`` and ``sweep``; what is of a wrong kind is told when the suite is checked."""
    series = layer.get("sweep")
    named = [layer.get("ablate"), *(series if isinstance(series, list | tuple) else ())]
    return [name.partition(".")[0] for name in named if isinstance(name, str) and name]


def _read(file: str) -> dict[str, Any]:
    path = Path(file) if file.endswith(".toml") else SUITES / f"{file}.toml"
    if path.exists() and not path.is_file():
        raise InputError(f"the suite {path} cannot be read: it is no file.")  # a pipe would be waited for
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = ", ".join(sorted(p.stem for p in SUITES.glob("*.toml")))
        raise InputError(f"there is no suite {file!r}. There are: {names}; or give the path of a .toml file.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"the suite {path} cannot be read: {error}.") from None
