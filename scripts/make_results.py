"""The board's shipped entries: the suite `standard` on every built-in verbalizer, each packed, checked and added.

python scripts/make_results.py

About two hours on two cores; it stops and resumes like any run, and what is in the store already stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from nlabench.benchmark.engine import Progress
from nlabench.benchmark.records import read_result
from nlabench.benchmark.roster import BUILT_IN
from nlabench.benchmark.runner import RunSettings, run
from nlabench.leaderboard.results_store import add_entry
from nlabench.submitting import submit
from nlabench.validating import validate

#: Floors of one verbalizer (its average, its texts permuted) stand in its own entry.
WRAPPERS = ("average-direction:", "permuted-texts:")


def main(
    run_folder: Annotated[Path, typer.Option(help="The run; made where it is not there yet.")] = Path("runs/standard"),
    results: Annotated[Path, typer.Option(help="The results store.")] = Path("leaderboard/results"),
    submissions: Annotated[Path, typer.Option(help="Where the packed folders go.")] = Path("runs/submissions"),
) -> None:
    """Run, pack, validate, add."""
    if not (run_folder / "result.json").is_file():
        run([*BUILT_IN, "selfie"], RunSettings(suite="standard"), out=run_folder, report=show_stage)
    for name in read_result(run_folder / "result.json").verbalizers:
        if name.startswith(WRAPPERS):
            continue
        folder = submissions / name.replace(":", "-")
        if not folder.is_dir():
            submit(run_folder, folder, verbalizer=name)
        found = validate(folder, results)
        if found.problems:
            raise SystemExit("\n".join(map(str, found.problems)))
        print(f"{name}: {add_entry(folder, results)}", *found.flags, sep="\n  ")


def show_stage(progress: Progress) -> None:
    """One line for each stage that is through."""
    if progress.done == progress.total:
        print(f"{progress.stage}: {progress.total:,}", flush=True)


if __name__ == "__main__":
    typer.run(main)
