"""The command line: ``python run_bench.py --methods flexclip,clip --shots 1,5``.

It parses, hands over and prints. Nothing heavy is imported for ``--help`` and ``list``.
"""

from __future__ import annotations

import importlib.util
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `main` answers it, it ends the program without a traceback

if not __package__:  # run as a script: this folder is the package, and no top-level `datasets` for anybody else
    _HERE = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _HERE]
    _SPEC = importlib.util.spec_from_file_location(
        "xshot_bench", _HERE / "__init__.py", submodule_search_locations=[str(_HERE)]
    )
    if _SPEC is None or _SPEC.loader is None:
        raise ImportError(f"{_HERE} is not the xshot_bench package")
    sys.modules["xshot_bench"] = importlib.util.module_from_spec(_SPEC)
    _SPEC.loader.exec_module(sys.modules["xshot_bench"])

import click

from xshot_bench import InputError, __version__, printable
from xshot_bench.benchmarks.amounts import DURATION, SIZE

RESULTS = click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Where records lie."
)
PLUGINS = click.option(
    "--plugin", "plugins", type=click.Path(path_type=Path), multiple=True, help="A Python file of yours with a method."
)
COMPUTING = (  # options of a run that a report has not
    "jobs", "executor", "address", "cell_timeout", "cell_memory", "force", "dry_run", "style", "ladder", "version",
)  # fmt: skip
MLFLOW = click.option("--mlflow-uri", help="A tracking server, or none. [default: SQLite in the results folder]")


class _Names(click.ParamType):
    """``a,b,c``; empty parts are an error."""

    name = "a,b,..."
    expected = "names with commas between them"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        parts = tuple(part.strip() for part in re.split(r",(?![^{]*})", str(value)))  # not those in braces
        if not all(parts):
            self.fail(f"{value!r} names nothing at one place. Expected: {self.expected}.", param, ctx)
        return parts


class _Shots(_Names):
    """``0,1,5``: whole numbers from 0 on, and ``all``."""

    name = "0,1,..."
    expected = "whole numbers from 0 on, like 0,1,5"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        parts = super().convert(value, param, ctx)
        for part in parts:
            if part != "all" and not (part.isascii() and part.isdigit() and len(part) < 10):
                self.fail(f"{part!r} is no number of shots. Expected: {self.expected}.", param, ctx)
        return tuple(part if part == "all" else int(part) for part in parts)


class _BatchSize(click.ParamType):
    """A whole number from 1 on; None for ``auto``."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "auto":
            return None
        return click.IntRange(1).convert(value, param, ctx)


@click.group(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--methods", type=_Names(), help="Methods, with switches after a colon: flexclip,flexclip:nogen,clip.")
@click.option("--ablate", help="A method to take apart: each component off, alone, all off; each switch.")
@click.option("--sweep", multiple=True, metavar="METHOD.PARAMETER=V,V,..", help="A parameter's values, compared.")
@click.option("--protocol", type=click.Choice(["xshot", "kshot", "instance"]), help="Whose rules. [default: xshot]")
@click.option("--shots", type=_Shots(), help="Labelled pairs of each target class; all: every one there is (kshot).")
@click.option("--draws", type=click.IntRange(1), help="How many random draws of the shots.")
@click.option("--datasets", type=_Names(), help="Datasets, with a class split after a slash: openmoji,openmoji/b.")
@click.option("--encoder", help="What makes the features: lite0-minilm, open_clip[/bf16]:MODEL@TAG_OR_FILE, pair:...")
@click.option("--batch-size", type=_BatchSize(), default="auto", show_default=True, help="Pictures encoded at once.")
@click.option(
    "--token-grid", type=click.IntRange(1), default=7, show_default=True, help="Side of the grid of spatial tokens."
)
@click.option("--views", type=click.IntRange(1), default=1, show_default=True, help="Views of each image.")
@click.option(
    "--ensemble",
    type=click.Choice(["normalised", "raw"]),
    default="normalised",
    show_default=True,
    help="How the features of a class's prompts are averaged.",
)
@click.option("--gallery", type=click.Choice(["test", "train", "all"]), help="What is searched.")
@click.option("--baseline", help="The method that differences are taken to.")
@click.option(
    "--correction", type=click.Choice(["holm", "fdr_bh"]), help="Over all tests of the table. [default: holm]"
)
@click.option(
    "--margin", type=click.FloatRange(0, 100), help="A smaller difference does not matter. [default: 0.5 mAP]"
)
@click.option("--ladder", is_flag=True, help="Print every test behind each difference, with its question.")
@click.option("--oracle", is_flag=True, default=None, help="Show what knowing the labels would score.")
@click.option("--set", "settings", multiple=True, metavar="METHOD.PARAMETER=VALUE", help="Set a method's parameter.")
@click.option("--tune", is_flag=True, help="Choose each method's parameters on classes (items) that are no test items.")
@click.option("--suite", help="A suite's name or .toml file; options go over it. [default: default]")
@click.option("--root", "roots", multiple=True, metavar="[DATASET=]DIR", help="The folder of a dataset of yours.")
@click.option("--skip-bad-items", is_flag=True, help="Go on without a dataset's bad items, and say how many.")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Where features are kept. [default: ~/.cache/xshot-bench]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--jobs", type=click.IntRange(1), help="Cells, or trials, at once. [default: the cores; 1 on a GPU]")
@click.option("--cell-timeout", type=DURATION, help="A cell that takes longer fails: 90, 5m. [default: no limit]")
@click.option("--cell-memory", type=SIZE, help="A cell that holds more fails: 4G. [default: no limit]")
@click.option(
    "--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where cells run."
)
@click.option("--address", metavar="auto|HOST:PORT", default="auto", show_default=True, help="Of the Ray cluster.")
@click.option("--force", is_flag=True, help="Run cells again that are done.")
@click.option("--dry-run", is_flag=True, help="Say what would run, and stop.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["auto", "rich", "github", "json", "csv", "latex"]),
    default="auto",
    show_default=True,
    help="auto: rich in a terminal, else github.",
)
@RESULTS
@PLUGINS
@MLFLOW
@click.version_option(__version__, prog_name="xshot-bench")
@click.pass_context
def cli(context: click.Context, /, **options: Any) -> None:
    """XShot Bench: few-shot cross-modal retrieval, compared so that the numbers can be trusted.

    Runs the methods on every dataset, X and draw, keeps each result under --results, and prints the table. Run it
    again, and only what is new or failed is computed.
    """
    if context.invoked_subcommand is None:
        from xshot_bench.benchmarks.invocation import main as run

        context.exit(run(options))


@cli.command("list")
@PLUGINS
@click.option("--check", is_flag=True, help="Import every entry, to find those that would fail when used (slow).")
def list_command(plugins: tuple[Path, ...], check: bool) -> None:
    """Show the methods, datasets and encoders there are, each with its file."""
    from xshot_bench.benchmarks.listing import listing

    for line in listing(plugins, check):
        click.echo(line)


@cli.command("describe")
@click.argument("dataset")
@click.option("--root", type=click.Path(path_type=Path), metavar="DIR", help="The dataset's folder.")
@click.option("--skip-bad-items", is_flag=True, help="Go on without its bad items, and say how many.")
@click.option("--encoder", default="lite0-minilm", show_default=True, help="Whose tokens the texts are counted in.")
@click.option("--sheet", type=click.Path(path_type=Path), metavar="FILE.png", help="Write pictures with their texts.")
@click.option("--cache", type=click.Path(path_type=Path), help="Where checked pictures are remembered.")
@click.option("--format", "style", type=click.Choice(["github", "json"]), default="github", show_default=True)
@PLUGINS
def describe_command(**options: Any) -> None:
    """Say what a dataset holds: counts, text lengths, what a random ranking scores; a contact sheet."""
    from xshot_bench.benchmarks.invocation import describe_dataset

    click.echo(describe_dataset(options))


@cli.command("compare")
@click.argument("a")
@click.argument("b")
@click.option("--correction", type=click.Choice(["holm", "fdr_bh"]), default="holm", show_default=True)
@click.option("--margin", type=click.FloatRange(0, 100), default=0.5, show_default=True, help="In mAP points.")
@click.option(
    "--format", "style", type=click.Choice(["auto", "rich", "github", "json"]), default="auto", show_default=True
)
@click.pass_context
def compare_command(context: click.Context, /, **options: Any) -> None:
    """Show two sets of results side by side: B is better, worse or the same, cell by cell.

    A and B are results folders, or git revisions: REV (its results/reference) or REV:PATH.
    """
    from xshot_bench.benchmarks.invocation import compare_results

    context.exit(compare_results(options))


@cli.command("report", params=[param for param in cli.params if param.name not in COMPUTING])
@click.option("--to", type=click.Path(path_type=Path, dir_okay=False), help="Write the page to this file as well.")
@click.option("--figures", type=click.Path(path_type=Path, file_okay=False), help="Write the figures here as well.")
@click.pass_context
def report_command(context: click.Context, /, **options: Any) -> None:
    """Make one self-contained HTML page of results that there are, with figures as PNG and SVG.

    Choose what it shows by the options of the run that computed it; without any it is what was asked last. Page and
    figures are kept under --results and told to MLflow.
    """
    from xshot_bench.benchmarks.publish import report

    context.exit(report(options))


@cli.command("sync")
@RESULTS
@MLFLOW
def sync_command(results: Path, mlflow_uri: str | None) -> None:
    """Bring MLflow up to date with the records in the results folder."""
    from xshot_bench.benchmarks.invocation import sync_store

    click.echo(sync_store(results, mlflow_uri))


@cli.command("splits")
@click.argument("dataset")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="Where to write. [default: datasets/splits]")
@PLUGINS
def splits_command(dataset: str, folder: Path | None, plugins: tuple[Path, ...]) -> None:
    """Make a dataset's split files again; they come out the same, byte for byte."""
    from xshot_bench.benchmarks.invocation import regenerate_splits

    for path in regenerate_splits(dataset, folder, plugins):
        click.echo(path)


@cli.command("fetch")
@click.argument("dataset")
@click.option(
    "--root", type=click.Path(path_type=Path), default=Path("data"), show_default=True, help="Where its folder goes."
)
@PLUGINS
def fetch_command(dataset: str, root: Path, plugins: tuple[Path, ...]) -> None:
    """Download a dataset's folder where torchvision can, and say what is to be got by hand."""
    from xshot_bench.benchmarks.invocation import fetch_dataset

    for line in fetch_dataset(dataset, root, plugins):
        click.echo(line)


def call(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0; 1 if cells failed; 2 for a wrong call; 130 if interrupted."""
    try:
        return cli(arguments, standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except InputError as error:
        click.echo(printable(f"Error: {error}"), err=True)
        return 2
    except OSError as error:  # of output: a full disk, a folder that is none
        click.echo(f"Error: a file cannot be read or written: {error}. Results that were stored are kept.", err=True)
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted. What was computed is stored; the same command goes on from there.", err=True)
        return 130


def main() -> NoReturn:
    """The program's entry point: ``kill`` ends it as Ctrl-C does."""

    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    code = 130
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell has it for a job in the background
                signal.signal(number, interrupted)
        code = call()
        for number in (signal.SIGINT, signal.SIGTERM):  # nothing is left to store: they just end what still goes on
            signal.signal(number, signal.SIG_DFL)
    except KeyboardInterrupt:  # beside the call, which answers those that come in it
        pass
    sys.exit(code)


if __name__ == "__main__":
    main()
