"""Reproduce the experiments of "Steered LLM Activations are Non-Surjective" (arXiv 2604.09839 v2), row by row.

    python scripts/reproduce_non_surjective.py --quick                       # every table, the default subject, a CPU
    python scripts/reproduce_non_surjective.py --table E2 --table E6
    python scripts/reproduce_non_surjective.py --subject Qwen/Qwen2.5-0.5B-Instruct --prompts harmful_test.json

Every row stands beside the published one and is marked `same`, `same shape`, `differs`, `not rerun`, or `no figure`
where nothing was published to compare with; the marks are rules on numbers. A table leaves its JSON and its figure in
--out; a table that is there with the same settings is shown and not run again. docs/paper.md says what all of it is
and is not.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import platform
import re
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import torch
import typer
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.loading import DEFAULT_SUBJECT, load_subject
from nlabench.benchmark.store import write_atomically
from non_surjective import many_shot
from non_surjective.rows import Outcome, Row
from non_surjective.setup import NO_LAYER_0, Setup, check_shots, describe, list_requests, make_setup, say_time
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from subject_arguments import check_dtype, check_layer, read_config

#: Tables in the order in which they are run, and the modules that run them.
TABLES = {
    "E6": "cross_prompt",
    "E3": "many_shot",
    "E4": "prefill",
    "E5": "soft_prefix",
    "E1": "inversion",
    "E2": "strength",  # its second curve is read off E1's inversions
    "sip-it": "sip_it",  # and its exhaustive scans are E1's
}
LIBRARIES = ("nlabench", "torch", "transformers", "scipy", "matplotlib")
MARKS = {"same": "green", "same shape": "cyan", "differs": "red", "not rerun": "dim", "no figure": "dim"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


@app.command()
def main(
    table: Annotated[list[str] | None, typer.Option(help=f"{', '.join(TABLES)} or all; may be given again.")] = None,
    subject: Annotated[str, typer.Option(help="A built-in asset, a folder, or a hub id.")] = DEFAULT_SUBJECT,
    layer: Annotated[int | None, typer.Option(help="Block at whose input the vector is added.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer prompts and steps.")] = False,
    prompts: Annotated[Path | None, typer.Option(help="Refusal requests in the refusal_direction format.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    shots: Annotated[int, typer.Option(help="Demonstrations of E3, up to 32.")] = 8,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the JSON files and figures go.")] = Path("runs/paper"),
) -> None:
    """Rerun tables of the paper and print our rows beside the published ones."""
    try:
        reproduce(table or ["all"], subject, layer, quick, prompts, dtype, device, shots, seed, out)
    except BadInput as error:
        console.print(Text(str(error)))
        raise typer.Exit(2) from error


def reproduce(
    wanted: list[str], name: str, layer: int | None, quick: bool, prompts: Path | None, dtype: str, device: str,
    shots: int, seed: int, out: Path,
) -> None:  # fmt: skip
    """Everything that the command does.

    Raises:
        BadInput: an unknown table, no matplotlib, a subject or prompts that cannot be used. What can be told from the
            arguments and the subject's configuration is told before its weights are read.
    """
    started = time.perf_counter()
    chosen = choose_tables(wanted)
    if importlib.util.find_spec("matplotlib") is None:
        raise BadInput(
            "The figures need matplotlib, which is not installed. Install it with nlabench's `train` extra: "
            "pip install 'nlabench[train]'."
        )
    check_dtype(dtype)
    check_shots(shots)
    requests = list_requests(prompts)
    check_layer(name, layer, read_config(name, say_time), NO_LAYER_0)
    subject = load_subject(name, dtype=dtype, device=device, say=say_time)
    if "E3" in chosen:
        many_shot.check_context(subject, requests, shots, quick=quick)
    say_time(f"{name}: {subject.n_blocks} blocks, {subject.dtype} on {subject.device}; making the directions")
    setup = make_setup(
        subject, layer=layer, prompts=prompts, quick=quick, seed=seed, invert="E1" in chosen, shots=shots
    )
    modules = {table: found for table in chosen if (found := find_module(table)) is not None}
    for table in chosen:
        if table not in modules:
            say_time(f"{table}: its module (non_surjective/{TABLES[table]}.py) is not here; not rerun")
    settings = {table: describe_settings(setup, module) for table, module in modules.items()}
    stored = {table: load_stored(out, table, settings[table]) for table in modules}
    announce(setup, {table: module for table, module in modules.items() if stored[table] is None})
    for table, module in modules.items():
        if (found := stored[table]) is not None:
            say_time(f"{table}: {out / f'{table}.json'} was made with the same settings; not run again")
            show(found["table"], found["title"], [Row(**row) for row in found["rows"]], found["notes"])
            continue
        begun, worked = time.perf_counter(), time.process_time()
        outcome = module.run(setup)
        seconds = time.perf_counter() - begun
        write(out, outcome, settings[table], seconds, time.process_time() - worked)
        say_time(f"{table}: {seconds:.0f} s; {out / f'{table}.json'}, {out / f'{table}.png'}")
        show(outcome.table, outcome.title, outcome.rows, outcome.notes)
    say_time(f"done after {time.perf_counter() - started:.0f} s")


def choose_tables(wanted: list[str]) -> list[str]:
    """The tables that were asked for, in the order in which they are run.

    Raises:
        BadInput: a table that there is not.
    """
    known = {table.lower(): table for table in TABLES}
    unknown = [table for table in wanted if table.lower() not in (*known, "all")]
    if unknown:
        raise BadInput(f"There is no table {unknown[0]!r}; expected {', '.join(TABLES)} or all. Choose one of those.")
    if "all" in (table.lower() for table in wanted):
        return list(TABLES)
    return [table for table in TABLES if table.lower() in {w.lower() for w in wanted}]


def find_module(table: str) -> ModuleType | None:
    try:
        return importlib.import_module(f"non_surjective.{TABLES[table]}")
    except ModuleNotFoundError as error:
        if error.name != f"non_surjective.{TABLES[table]}":
            raise
        return None


def describe_settings(setup: Setup, module: ModuleType) -> dict[str, Any]:
    """What decides a table's numbers: two files with equal settings hold the same figures."""
    subject = setup.subject
    made = json.dumps(
        {name: [vector.tolist(), setup.prompts[name]] for name, vector in setup.directions.items()}, sort_keys=True
    )
    return {
        "subject": subject.name,
        "fingerprint": subject.fingerprint,
        "dtype": str(subject.dtype),
        "device": subject.device.type,
        "quick": setup.quick,
        "code": hash_code(module),
        **({"shots": setup.shots} if module.__name__.endswith("many_shot") else {}),
        **({"invert": setup.invert} if hasattr(module, "DEPENDS") else {}),
        "directions_and_prompts": hashlib.sha256(made.encode()).hexdigest()[:16],
        **describe(setup),
    }


def hash_code(module: ModuleType) -> str:
    """A hash of the code that makes a table: its module, what that imports from this folder, and from nlabench."""
    folder = Path(str(module.__file__)).parent
    waiting = [folder / f"{name}.py" for name in getattr(module, "DEPENDS", ())] + [Path(str(module.__file__))]
    files: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file in files or not file.is_file():
            continue
        files.add(file)
        code = file.read_text(encoding="utf-8")
        waiting += [folder / f"{name}.py" for name in re.findall(r"^from \.(\w+) import", code, re.MULTILINE)]
        ours = [importlib.util.find_spec(n) for n in re.findall(r"^from (nlabench[\w.]+) import", code, re.MULTILINE)]
        files |= {Path(spec.origin) for spec in ours if spec is not None and spec.origin}
    return hashlib.sha256(b"".join(sorted(file.read_bytes() for file in files))).hexdigest()[:16]


def load_stored(out: Path, table: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """A table's file, where it was made with these settings and its figure is beside it."""
    file = out / f"{table}.json"
    if not file.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    same = found.get("settings") == json.loads(json.dumps(settings))
    return found if same and (found.get("figure") is None or (out / found["figure"]).is_file()) else None


def announce(setup: Setup, modules: dict[str, ModuleType]) -> None:
    """Say beforehand how long each table will take, from rates measured now."""
    if not modules:
        return
    seconds = {}
    for table, module in modules.items():
        seconds[table] = float(module.estimate(setup))
    reader = next((table for table in ("E2", "sip-it") if table in modules), None)
    if setup.invert and reader and "E1" not in modules and (inversion := find_module("E1")) is not None:
        seconds[reader] += float(inversion.estimate(setup))  # E1 is there already: its inversions are made again
    parts = ", ".join(f"{table} {show_seconds(value)}" for table, value in seconds.items())
    say_time(f"this will take about {show_seconds(sum(seconds.values()))} at the speed measured just now: {parts}")


def show_seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def write(out: Path, outcome: Outcome, settings: dict[str, Any], seconds: float, processor_seconds: float) -> None:
    """The figure, then the JSON: where the JSON is, the table is whole."""
    figure = None
    if outcome.draw is not None:
        figure = f"{outcome.table}.png"
        save_figure(outcome, out / figure)
    record = {
        "table": outcome.table,
        "title": outcome.title,
        "settings": settings,
        "provenance": {
            "paper": "arXiv 2604.09839 v2",
            "command": sys.argv,
            "seconds": round(seconds, 1),
            "processor_seconds": round(processor_seconds, 1),  # of all threads: on a busy machine the fairer figure
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
        "rows": [row.__dict__ for row in outcome.rows],
        "notes": outcome.notes,
        "figure": figure,
        "data": outcome.data,
    }
    write_atomically(out / f"{outcome.table}.json", json.dumps(record, indent=1, ensure_ascii=False))


def save_figure(outcome: Outcome, file: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    assert outcome.draw is not None
    outcome.draw(figure)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)


def show(table: str, title: str, rows: list[Row], notes: list[str]) -> None:
    """Our rows beside the published ones."""
    grid = Table(title=f"{table}. {title}", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column, share in (("row", 4), ("published", 3), ("ours", 4), ("mark", None), ("why", 4)):
        grid.add_column(column, ratio=share, no_wrap=share is None)
    for row in rows:
        cells = [Text(cell) for cell in (row.what, row.published, row.ours)]
        grid.add_row(*cells, Text(row.verdict, MARKS[row.verdict]), Text(row.why))
    console.print(grid)
    for note in notes:
        console.print(Text(f"- {note}", "dim"))
    console.print()


if __name__ == "__main__":
    app()
