"""What there is to choose from, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from xshot_bench import InputError
from xshot_bench.benchmarks.registry import KINDS, Registry


def listing(plugins: Sequence[Path], check: bool) -> Iterator[str]:
    """Methods, datasets and encoders: name, file and first line each; a broken one with its true error.

    Our own files are described from their source. ``check`` imports each as well.
    """
    registry = Registry(plugins)
    known = {kind: registry.of(kind) for kind in KINDS}
    for kind, entries in known.items():
        yield f"{kind}s"
        width = max((len(entry.name) for entry in entries), default=0)
        origin = max((len(entry.origin) for entry in entries), default=0)
        for entry in entries:
            error = entry.error
            if check and not error:
                try:
                    registry.load(kind, entry.name)
                except InputError as failure:
                    error = str(failure.__cause__)
            says = f"BROKEN: {error}" if error else entry.summary
            yield f"  {entry.name:<{width}}  {entry.origin:<{origin}}  {says}".rstrip()
        yield ""
