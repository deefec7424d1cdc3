"""What tests of the report share: texts that try to break out of a page, and a page that was made."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xshot_bench.benchmarks.store import Store

ALERT = "<script>alert(1)</script>"
ENDING = """</script><img src=x onerror="alert('2')">{{ 7 * 7 }} $x_1$ "quoted" & 'so' مرحبا"""
SHOTS, DRAWS, METHODS = (0, 2), 3, ("prototype", "clip", "random")


@dataclass(frozen=True)
class Reported:
    """What a run and its report left. options: those of the run. items: file name -> the row of the metadata."""

    folder: Path
    data: Path
    options: tuple[str, ...]
    out: str
    items: dict[str, dict[str, str]]

    @property
    def store(self) -> Store:
        return Store(self.folder / "results")

    @property
    def page(self) -> Path:
        return self.folder / "page.html"

    @property
    def text(self) -> str:
        return self.page.read_text(encoding="utf-8")

    @property
    def data_of_page(self) -> dict[str, Any]:
        (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', self.text, re.S)
        return json.loads(found)
