"""The typed records that results are made of: a cell, and what came of running it."""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from xshot_bench.benchmarks.protocol import Setting
from xshot_bench.datasets.splitting import Gallery, Shots

Status = Literal["done", "declined", "failed"]


class Cell(BaseModel):
    """One method on one episode; its digest is the name of its record.

    method: its name with the variant as asked for, e.g. ``flexclip:nogen``. parameters: all of them, resolved.
    code: SHA-256 of the method's source. features, split: digests. dataset: with its class split, e.g. ``openmoji/b``.
    protocol: its name and version, e.g. ``xshot/1``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    parameters: dict[str, Any]
    code: str
    dataset: str
    encoder: str
    features: str
    split: str
    gallery: Gallery
    shots: Shots
    draw: int
    protocol: str

    @property
    def setting(self) -> Setting:
        return Setting(self.shots, self.draw, self.gallery)

    @property
    def plugin(self) -> str:
        """The method's name without its variant."""
        return re.split("[:{]", self.method)[0]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what determines the result: not the names of variants and encoders, but what they mean."""
        content = self.model_dump(exclude={"method", "dataset", "encoder"}) | {"method": self.plugin}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Provenance(BaseModel):
    """Where and with what a result was computed. ``commit`` is empty outside a git checkout."""

    commit: str
    dirty: bool
    packages: dict[str, str]
    hardware: str
    device: str
    finished: str


class Record(BaseModel):
    """What stands in ``results/cells/<digest>.json``.

    reason: one line, for cells that failed or were declined. metrics: ``i2t/mAP`` and the like, fractions.
    floor: the expected mAP of a random ranking, per direction. precision: its mean over the queries at recall 0, 0.1,
    ..., 1, interpolated, per direction. seconds: per phase (episode, fit, score).
    ap_file, ap_sha256: the Parquet file with the AP of every query beside this file, and its digest.
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    schema_version: Literal[2] = 2
    cell: Cell
    status: Status
    reason: str = ""
    metrics: dict[str, float] = {}
    floor: dict[str, float] = {}
    precision: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    seconds: dict[str, float] = {}
    diagnostics: dict[str, float] = {}
    provenance: Provenance
    ap_file: str = ""
    ap_sha256: str = ""


@dataclass
class Result:
    """A record with its AP per query, and of a failure the traceback.

    ap: a Parquet file, made where the cell ran: columns ``query`` (item id), ``class``, ``i2t``, ``t2i``; and of each
    direction ``i2t_first``, the ids of the items ranked first, with ``i2t_right``, which of them are relevant.
    """

    record: Record
    ap: bytes = b""
    traceback: str = ""


def to_parquet(table: pd.DataFrame) -> bytes:
    """The table as the content of a Parquet file."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()
