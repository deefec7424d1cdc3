"""What MLflow is told of a record and of an invocation: names, tags, parameters, metrics, inputs and artifacts.

A cell is a run with one value of each metric; its ``i2t/precision`` has a value for each level of recall, as steps. An
invocation is the parent run of its cells; its ``openmoji/clip/mAP`` has a value for each X, as steps. So MLflow's own
charts draw X against mAP, and two runs are compared there by parameters and metrics of one name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xshot_bench.benchmarks.invocations import Invoked
from xshot_bench.benchmarks.records import Record

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Param

PARENT = "mlflow.parentRunId"
CELL, INVOCATION, RECORD, STORE, KIND = "cell", "invocation", "record", "store", "kind"
LONGEST, LONGEST_TAG = 36, 5000  # characters that MLflow keeps of a data set's digest, and of a tag


def cell_name(record: Record) -> str:
    cell = record.cell
    return f"{cell.method} {cell.dataset} X={cell.shots} draw {cell.draw}"


def cell_tags(record: Record) -> dict[str, str]:
    cell = record.cell
    tags = {
        KIND: "cell",
        CELL: cell.digest,
        "method": cell.method,
        "dataset": cell.dataset,
        "encoder": cell.encoder,
        "shots": str(cell.shots),
        "seed": str(cell.draw),
        "gallery": cell.gallery,
        "protocol": cell.protocol,
        "split_digest": cell.split,
        "features_digest": cell.features,
        "status": record.status,
        "git_commit": record.provenance.commit,
        "git_dirty": str(record.provenance.dirty).lower(),
    }
    return tags | ({"reason": record.reason[:LONGEST_TAG]} if record.reason else {})


def cell_params(record: Record) -> list[Param]:
    cell = record.cell
    named = {"method": cell.method, "dataset": cell.dataset, "encoder": cell.encoder, "gallery": cell.gallery}
    named |= {"shots": str(cell.shots), "seed": str(cell.draw)}
    return _params(named | {f"method/{name}": value for name, value in cell.parameters.items()})


def cell_metrics(record: Record) -> list[Metric]:
    from mlflow.entities import Metric

    numbers = dict(record.metrics)
    for group in ("floor", "seconds", "diagnostics"):
        numbers |= {f"{group}/{name}": value for name, value in getattr(record, group).items()}
    curves = [
        Metric(f"{direction}/precision", value, 0, step)
        for direction, values in record.precision.items()
        for step, value in enumerate(values)
    ]
    return [*(Metric(_allowed(key), value, 0, 0) for key, value in numbers.items()), *curves]


def cell_inputs(record: Record) -> list[DatasetInput]:
    """The split and the features as data sets, by the digests that we gave them; nothing is read or hashed."""
    cell = record.cell
    split = _input(cell.dataset, cell.split, f"splits/{cell.split}.json", "split", record.counts)
    return [split, _input(f"{cell.dataset} by {cell.encoder}", cell.features, cell.features, "features", {})]


def cell_times(record: Record) -> tuple[int, int]:
    """When its computing began and ended, milliseconds since 1970."""
    ended = _milliseconds(record.provenance.finished)
    return ended - round(1000 * sum(record.seconds.values())), ended


def invocation_tags(invoked: Invoked) -> dict[str, str]:
    return {KIND: "invocation", INVOCATION: invoked.id}


def invocation_params(invoked: Invoked) -> list[Param]:
    suite = invoked.suite.model_dump()
    tuned = suite.pop("tuned")
    named = {key: ",".join(map(str, v)) if isinstance(v, tuple) else v for key, v in suite.items()}
    for dataset, found in tuned.items():
        for method, values in found.items():
            named[f"tuned/{dataset}/{method}"] = ", ".join(f"{name}={value}" for name, value in values.items())
    return _params(named)


def invocation_metrics(folder: Path) -> Iterator[Metric]:
    """Mean mAP, both directions and the difference of every row of the invocation's table of methods."""
    from mlflow.entities import Metric

    for row in _methods(folder):
        many = "" if isinstance(row["shots"], int) else f" X={row['shots']}"
        for column, name in (("mean", "mAP"), ("i2t", "i2t"), ("t2i", "t2i"), ("difference", "difference")):
            if row.get(column) is not None:
                key = f"{row['dataset']}/{row['method']}/{name}{many}"
                yield Metric(_allowed(key), row[column], 0, 0 if many else row["shots"])


def invocation_inputs(folder: Path) -> list[DatasetInput]:
    """The split of every dataset."""
    splits = {row["dataset"]: row["split"] for row in _methods(folder) if row.get("split")}
    return [_input(name, split, f"splits/{split}.json", "split", {}) for name, split in splits.items()]


def invocation_times(invoked: Invoked) -> tuple[int, int | None]:
    """When it was first begun and ended, milliseconds since 1970; None where that is not known."""
    return _milliseconds(invoked.started), _milliseconds(invoked.ended) if invoked.ended else None


def shown_tags(folder: Path) -> dict[str, str]:
    """What makes MLflow's interface show the files in ``tables/`` as tables, and the table as the run's description."""
    names = sorted(path.name for path in (folder / "tables").glob("*.json"))
    tags = {"mlflow.loggedArtifacts": json.dumps([{"path": f"tables/{name}", "type": "table"} for name in names])}
    path = folder / "table.md"
    text = path.read_text(encoding="utf-8").partition("\n\nEvery test\n")[0] if path.is_file() else ""
    return tags | {"mlflow.note.content": text[:LONGEST_TAG]}


def _methods(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of the invocation's table of methods, as far as there is one."""
    path = folder / "tables" / "methods.json"
    if path.is_file():
        table = json.loads(path.read_text(encoding="utf-8"))
        for line in table["data"]:
            yield dict(zip(table["columns"], line, strict=True))


def _input(name: str, digest: str, source: str, context: str, profile: dict[str, int]) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": source})
    dataset = Dataset(name[:500], digest[:LONGEST], "local", source, profile=json.dumps(profile or None))
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def _params(values: dict[str, Any]) -> list[Param]:
    from mlflow.entities import Param

    return [Param(_allowed(key), str(value)) for key, value in values.items()]


def _allowed(name: str) -> str:
    """The name with what MLflow takes in names."""
    return re.sub(r"[^\w.\- :/]", "_", name)


def _milliseconds(time: str) -> int:
    return round(1000 * datetime.fromisoformat(time).timestamp())
