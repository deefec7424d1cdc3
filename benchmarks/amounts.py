"""Amounts with a unit, as options take them: ``90s``, ``4G``. Imports nothing heavy, for ``--help``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click

SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
BYTES = {f"{prefix}{end}": 1000**n for n, prefix in enumerate("kmgt", 1) for end in ("", "b")}
BYTES |= {f"{prefix}ib": 1024**n for n, prefix in enumerate("kmgt", 1)}


class Amount(click.ParamType):
    """A number with one of ``units`` (name in small letters -> how many of the smallest), as that many of these."""

    def __init__(self, name: str, units: Mapping[str, int], expected: str) -> None:
        self.name, self.units, self.expected = name, units, expected

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The amount; a usage error for what is none, or is 0."""
        found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,12})?) ?([a-z]*)", str(value).strip().lower())
        amount = float(found[1]) * self.units.get(found[2], 0) if found else 0.0
        if not amount:
            self.fail(f"{value!r} was not understood. Expected: {self.expected}.", param, ctx)
        return amount


DURATION = Amount("SECONDS", SECONDS, "seconds, or a number with s, m or h, like 90, 90s, 5m, 1h")
SIZE = Amount("SIZE", BYTES, "a number with a unit, like 500M, 4G or 4GiB")
