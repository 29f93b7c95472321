"""The store's entries after a change of how texts are scored: every number again, from the texts that they hold.

    nlabench run --suite standard --verbalizer constant --out runs/standard-now
    python scripts/rescore_entries.py runs/standard-now

A task's version goes up when its numbers change, and versions are never compared: without this, every verbalizer of a
board would have to be run again for a mended interval. RUN is a run with the installed version on the entries' subject,
site and pack; it holds one control at least. From it come the behaviour gate and the settings that do not touch items.
An entry's texts, and what tasks measured with its verbalizer, stay; the new entry says when it was rescored, and takes
the old one's place. Left alone, and named: entries of other boards, of private packs, and verified ones.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.pairing import match_items
from nlabench.benchmark.records import Result
from nlabench.benchmark.rescoring import score_texts_again
from nlabench.benchmark.stored_run import StoredRun, read_run
from nlabench.leaderboard.entries import Entry, write_estimates, write_manifest
from nlabench.leaderboard.regression import check_comparable
from nlabench.leaderboard.results_store import add_entry, read_store
from nlabench.submitting import make_again
from nlabench.validating import read_stored

#: Settings of a suite that decide neither items nor texts.
FREE_SETTINGS = ("version", "gate_permuted_draws")


def main(
    run: Annotated[Path, typer.Argument(help="A run with the installed version, of the entries' board.")],
    results: Annotated[Path, typer.Option(help="The results store.")] = Path("leaderboard/results"),
) -> None:
    """Rescore the entries of the run's board."""
    try:
        stored = read_run(run)
        entries, _ = read_store(results)
        for entry in entries:
            why = why_left(entry, stored.result)
            print(f"{entry.id} ({entry.card.name}): {why or rescore_entry(entry, stored, results)}", flush=True)
    except BadInput as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


def why_left(entry: Entry, now: Result) -> str:
    """Why an entry is left as it is; "" where it is rescored."""
    if entry.private or entry.verified:
        return "left as it is: it is " + ("of a private pack" if entry.private else "verified, which new numbers undo")
    board, its = (_board_of(result) for result in (now, entry.result))
    if its != board:
        return f"left as it is: it is of another board ({', '.join(its)}; the run: {', '.join(board)})"
    mine = take_over(entry.result, now)
    try:
        check_comparable(mine, now)
    except BadInput as error:
        return f"left as it is: {str(error)[:200]}"
    old, new = (found.provenance for found in (entry.result, mine))
    same = (old.tasks, old.suite, old.gate) == (new.tasks, new.suite, new.gate)
    return "left as it is: its numbers are of the installed versions" if same else ""


def _board_of(result: Result) -> tuple[str, str, str]:
    made = result.provenance
    return made.subject, f"suite {made.suite['name']}", f"pack {made.pack}"


def take_over(result: Result, now: Result) -> Result:
    """An entry's record with the run's gate, task versions and free settings."""
    made = result.provenance
    settings = {name: now.provenance.suite[name] for name in FREE_SETTINGS}
    version = importlib.metadata.version("nlabench")
    provenance = made.model_copy(
        update={
            "suite": {**made.suite, **settings},
            "tasks": {name: now.provenance.tasks.get(name, old) for name, old in made.tasks.items()},
            "gate": now.provenance.gate,
            "rescored": f"{datetime.now(UTC).date().isoformat()}, nlabench {version} ({now.provenance.git})",
        }
    )
    return result.model_copy(update={"provenance": provenance, "gate": now.gate})


def rescore_entry(entry: Entry, run: StoredRun, results: Path) -> str:
    """Put the rescored entry in the old one's place; says what became of it.

    Raises:
        BadInput: the entry and the run do not have the same items.
    """
    stored = read_stored(entry)
    match_items(stored, run)
    renewed = replace(stored, result=take_over(entry.result, run.result))
    result, estimates = make_again(score_texts_again(renewed), entry.card.name)
    with tempfile.TemporaryDirectory() as making:
        folder = Path(making) / "entry"
        folder.mkdir()
        for name in ("card.json", "items.parquet"):
            shutil.copyfile(entry.folder / name, folder / name)
        (folder / "result.json").write_text(result.model_dump_json(), encoding="utf-8")
        write_estimates(estimates, folder / "estimates.parquet")
        write_manifest(folder, entry.card.name, result.provenance.nlabench)
        place = add_entry(folder, results)
    if place != entry.folder:
        shutil.rmtree(entry.folder)
    return f"rescored as {place.name}"


if __name__ == "__main__":
    typer.run(main)
