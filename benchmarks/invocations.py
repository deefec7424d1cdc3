"""``results/invocations/``: what was asked of a folder, and what it came to. MLflow's parent runs are made from it.

results/invocations/<id>/invocation.json      the suite, its cells, and how it ended
results/invocations/<id>/table.md, *.csv, …   the tables; after `report` also report.html and figures/
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from xshot_bench.benchmarks.store import Store
from xshot_bench.benchmarks.suite import Suite

NAME = "invocation.json"


class Invoked(BaseModel):
    """A suite that was run: asked again it is the same invocation, with the times of the first.

    cells: the digests of its cells. started, ended: ISO 8601, UTC; "" until then. status: ``running`` is also that of a
    run that was killed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    suite: Suite
    cells: tuple[str, ...]
    started: str
    ended: str = ""
    status: Literal["running", "finished", "interrupted"] = "running"

    @property
    def id(self) -> str:
        """The name of its folder."""
        return id_of(self.suite)

    @property
    def name(self) -> str:
        """What people call it: datasets and shots."""
        return f"{','.join(self.suite.datasets)} X={','.join(map(str, self.suite.shots))}"


def id_of(suite: Suite) -> str:
    """16 hex digits of the suite's SHA-256."""
    untuned = None if suite.tuned else {"tuned"}
    return hashlib.sha256(suite.model_dump_json(exclude=untuned).encode()).hexdigest()[:16]


class Invocations:
    """The invocations of a store. Writing is done inside ``store.writing()``."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folder = store.folder / "invocations"

    def begin(self, suite: Suite, cells: tuple[str, ...]) -> Invoked:
        """Note that a suite is being run."""
        known = self.known(suite)
        invoked = Invoked(
            suite=suite,
            cells=cells,
            started=known.started if known else _now(),
            ended=known.ended if known and known.status == "finished" else "",
        )
        self._write(invoked)
        return invoked

    def known(self, suite: Suite) -> Invoked | None:
        """What is known of this very suite."""
        return self._read(id_of(suite))

    def end(
        self, invoked: Invoked, files: Mapping[str, str | bytes], status: Literal["finished", "interrupted"]
    ) -> Invoked:
        """Keep what it came to, as files by name, and note how it ended. Other files of it stay."""
        for name, content in files.items():
            self.store.write(self.path(invoked) / name, content.encode() if isinstance(content, str) else content)
        ended = invoked.model_copy(update={"status": status, "ended": invoked.ended or _now()})
        self._write(ended)
        return ended

    def all(self) -> list[Invoked]:
        """Every readable one, the earliest first."""
        found = [self._read(path.parent.name) for path in self.folder.glob(f"*/{NAME}")]
        return sorted((one for one in found if one), key=lambda one: (one.started, one.id))

    def path(self, invoked: Invoked) -> Path:
        """The folder of one."""
        return self.folder / invoked.id

    def files(self, invoked: Invoked) -> list[Path]:
        """What it came to: every file of its folder but the note itself."""
        return sorted(p for p in self.path(invoked).rglob("*") if p.is_file() and p.name != NAME and p.name[0] != ".")

    def digest(self, invoked: Invoked) -> str:
        """SHA-256 (hex) of the cells and the content of all files."""
        digest = hashlib.sha256(json.dumps(invoked.cells).encode())
        for path in self.files(invoked):
            digest.update(f"{path.relative_to(self.path(invoked))}\0".encode() + path.read_bytes())
        return digest.hexdigest()

    def _read(self, name: str) -> Invoked | None:
        try:
            return Invoked.model_validate_json((self.folder / name / NAME).read_bytes())
        except (OSError, ValidationError):
            return None

    def _write(self, invoked: Invoked) -> None:
        self.store.write(self.path(invoked) / NAME, invoked.model_dump_json(indent=1).encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
