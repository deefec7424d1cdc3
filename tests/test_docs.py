"""What the documentation shows works as shown."""

import re
from pathlib import Path

from cases import METHOD_CHECKS

ROOT = Path(__file__).resolve().parent.parent
CODE = re.search(r"```python\n(.*?)```", (ROOT / "docs/add-a-method.md").read_text(), re.DOTALL)[1]


def test_the_documented_method_is_short_and_runs(bench, tmp_path):
    assert len(CODE.splitlines()) < 30
    plugin = tmp_path / "centred.py"
    plugin.write_text(CODE)
    ask = ("--plugin", str(plugin), "--methods", "centred,centred:raw,clip", "--shots", "1", "--draws", "2")
    called = bench(*ask, "--format", "json")
    assert called.code == 0, called.err
    rows = {row["method"]: row for row in called.table["rows"]}
    assert rows["centred:raw"]["difference"]["estimate"]["mean"] == 0  # the switch makes it zero-shot
    assert rows["centred"]["difference"]["estimate"]["mean"] != 0


def test_the_documented_method_passes_the_checks_it_is_told_to():
    space: dict = {"__name__": "centred"}
    exec(compile(CODE, "centred.py", "exec"), space)  # the page's own code
    for check in METHOD_CHECKS:
        check(space["Centred"])


def test_every_module_stands_on_the_map():
    page = (ROOT / "docs/architecture.md").read_text()
    for file in (ROOT / "benchmarks").glob("*.py"):
        if not file.name.startswith(("_", "bench_")):
            assert file.name in page, f"{file.name} is not in docs/architecture.md"
