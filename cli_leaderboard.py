"""The commands of the leaderboard: pack a run as a submission, check one, keep entries, show the board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .terminal import console

RESULTS = Path("leaderboard/results")

#: A forged text spoils hundreds of numbers; the first say which.
MOST_PROBLEMS = 20

leaderboard_app = typer.Typer(no_args_is_help=True, help="Keep the board's entries, and show them ranked.")
Results = Annotated[Path, typer.Option("--results", help="The results store: a folder per subject, verbalizer, entry.")]
Submission = Annotated[Path, typer.Argument(help="A folder that `nlabench submit` wrote.")]


def submit(
    run_folder: Annotated[Path, typer.Argument(help="A run's folder, with result.json and items.parquet.")],
    out: Annotated[
        Path | None, typer.Option(help="The new folder. Default: submissions/ and the verbalizer's name.")
    ] = None,
    verbalizer: Annotated[str | None, typer.Option(help="Whose texts, where several were under test.")] = None,
    author: Annotated[list[str] | None, typer.Option(help="Who made it; repeat for several.")] = None,
    link: Annotated[str, typer.Option(help="Where it can be found (http or https). Default: its card's.")] = "",
    licence: Annotated[str, typer.Option(help="Its licence. Default: its card's.")] = "",
    training_data: Annotated[
        str, typer.Option(help="A sentence on what it was trained on, and if texts of the pack were seen.")
    ] = "",
    description: Annotated[str, typer.Option(help="A sentence on what it is. Default: its card's.")] = "",
    to: Annotated[
        Literal["folder", "hub"], typer.Option(help="hub: also push it as a dataset repository; see --repo.")
    ] = "folder",
    repo: Annotated[str | None, typer.Option(help="For --to hub: owner/name of the dataset repository.")] = None,
    push: Annotated[bool, typer.Option("--push", help="For --to hub: really push. Without, it is a dry run.")] = False,
    private: Annotated[
        bool,
        typer.Option("--private", help="The pack is not published: numbers alone, for a maintainer to add."),
    ] = False,
) -> None:
    """Pack a run's verbalizer as a submission: a folder that is ready for a pull request.

    It holds the verbalizer's card, its numbers, and every text, so that whoever receives it can make every number
    again: that is what `nlabench validate` does.
    """
    from .benchmark.errors import BadInput
    from .leaderboard.entries import read_entry
    from .submitting import has_public_pack
    from .submitting import submit as pack

    if to == "hub" and not repo:
        raise BadInput("--to hub was given without a repository. Name one: --repo OWNER/NAME.")
    if to == "hub" and private:
        raise BadInput(
            "--to hub was given with --private. Such an entry goes to a maintainer's store alone; leave one."
        )
    folder = pack(
        run_folder, out, verbalizer=verbalizer, authors=author or (), link=link, licence=licence,
        training_data=training_data, description=description, private=private,
    )  # fmt: skip
    if private:
        console.print(
            f"Submission: {folder}\nNext: nlabench leaderboard add {folder} --verified-by NAME", soft_wrap=True
        )
        return
    console.print(f"Submission: {folder}\nNext: nlabench validate {folder}", soft_wrap=True)
    result = read_entry(folder).result
    if not has_public_pack(result):
        console.print(
            f"Its pack, {result.provenance.pack!r}, does not come with nlabench: the entry holds its concepts' names, "
            "their descriptions and words of its prompts. If they must stay unknown, remove it and pass --private.",
            style="yellow", soft_wrap=True, markup=False,
        )  # fmt: skip
    if to == "hub":
        from .leaderboard.hub import push as push_folder

        files = push_folder(folder, str(repo), dry_run=not push)
        done = "Pushed" if push else "A dry run: nothing was sent. --push would send"
        console.print(f"{done} to the dataset repository {repo}: {', '.join(files)}", soft_wrap=True, markup=False)


def validate(
    submission: Submission,
    results: Results = RESULTS,
    pack: Annotated[str | None, typer.Option(help="Its concept pack, where the record's source is not here.")] = None,
) -> None:
    """Check a submission: whole, unchanged, and every number made again from its texts.

    Exit code 0: it can be added. 1: it cannot, and each reason says which file, row and field. 2: no submission.
    """
    _validate(submission, results, pack)


def _validate(submission: Path, results: Path, pack: str | None = None, *, by_maintainer: bool = False) -> None:
    from .benchmark.concepts import load_pack
    from .validating import validate as check

    found = check(submission, results, load_pack(pack) if pack else None, by_maintainer=by_maintainer)
    for problem in found.problems[:MOST_PROBLEMS]:
        console.print(str(problem), soft_wrap=True, markup=False)
    if len(found.problems) > MOST_PROBLEMS:
        console.print(f"… and {len(found.problems) - MOST_PROBLEMS:,} more", markup=False)
    for flag in found.flags:
        console.print(f"flag: {flag}", soft_wrap=True, markup=False, style="yellow")
    n = len(found.problems)
    console.print(f"{submission}: {n} problem{'s' * (n != 1)}, {len(found.flags)} flagged", markup=False)
    if found.problems:
        raise typer.Exit(1)


@leaderboard_app.command()
def add(
    submission: Submission,
    results: Results = RESULTS,
    pack: Annotated[str | None, typer.Option(help="Its concept pack, where the record's source is not here.")] = None,
    verified_by: Annotated[
        str, typer.Option(help="Of an entry of a private pack: the maintainer who ran it. Nobody else can add one.")
    ] = "",
    evidence: Annotated[str, typer.Option(help="For --verified-by: a link or a sentence.")] = "",
) -> None:
    """Validate a submission and add it to the results store. What is there is never changed."""
    from datetime import UTC, datetime

    from .benchmark.errors import BadInput
    from .leaderboard.entries import Verification, read_manifest
    from .leaderboard.results_store import add_entry, read_store

    verified = None
    if verified_by:
        if not read_manifest(submission).private:
            raise BadInput(
                f"{submission} holds its texts, so everybody can score it again. Add it without --verified-by, run the "
                "verbalizer again, and compare: nlabench leaderboard verify."
            )
        verified = Verification(
            how="private pack", by=verified_by, date=datetime.now(UTC).date().isoformat(),
            evidence=evidence or "Run by the maintainer on a pack that is not published.",
        )  # fmt: skip
    _validate(submission, results, pack, by_maintainer=verified is not None)
    there = {entry.folder for entry in read_store(results)[0]}
    place = add_entry(submission, results, verified)
    console.print(f"{'Already there' if place in there else 'Added'}: {place}", soft_wrap=True, markup=False)


@leaderboard_app.command()
def verify(
    entry: Annotated[str, typer.Argument(help="An entry of the store: its folder, or its id.")],
    run_folder: Annotated[Path, typer.Option("--run", help="Your own run of its verbalizer: same suite and pack.")],
    by: Annotated[str, typer.Option(help="Who ran it again.")],
    results: Results = RESULTS,
    verbalizer: Annotated[str | None, typer.Option(help="Its name in your run, where that is not the entry's.")] = None,
    tolerance: Annotated[float, typer.Option(help="How far a headline number may lie from the entry's.")] = 0.02,
) -> None:
    """Compare an entry with your own run of its verbalizer; where they agree, mark it as verified.

    Exit code 0: they agree, and verified.json says so, by whom and from which run. 1: they do not, and each number that
    differs is shown beside the other; nothing is written. 2: the two cannot be compared.
    """
    from .verifying import verify as compare

    found = compare(entry, run_folder, by=by, results=results, verbalizer=verbalizer, tolerance=tolerance)
    for difference in found.differences:
        console.print(str(difference), soft_wrap=True, markup=False)
    console.print(f"{found.texts_equal:.1%} of texts equal", markup=False)
    if found.file is None:
        console.print(f"{found.entry.folder}: not verified, {len(found.differences)} differ", markup=False)
        raise typer.Exit(1)
    console.print(f"Verified: {found.file}", soft_wrap=True, markup=False)


@leaderboard_app.command()
def show(
    results: Results = RESULTS,
    sort: Annotated[str, typer.Option(help="steered, natural, gap, false_claims or r50.")] = "steered",
) -> None:
    """Print every board of a results store, with ranks as intervals."""
    from .benchmark.errors import BadInput
    from .leaderboard.board_table import show_board
    from .leaderboard.ranking import COLUMNS, group_boards
    from .leaderboard.results_store import read_store

    known = [column.name for column in COLUMNS]
    if sort not in known:
        raise BadInput(f"There is no column {sort!r}. Sort by one of {', '.join(known)}.")
    if not results.is_dir():
        raise BadInput(f"There is no results store at {results}. Pass --results, or add an entry: it makes one.")
    entries, broken = read_store(results)
    if broken and not entries:
        raise BadInput(
            f"No entry in {results} can be read; the first is {broken[0][0]}: {broken[0][1]} A store holds "
            "SUBJECT/VERBALIZER/ID; pass its folder as --results."
        )
    for board in group_boards(entries):
        console.print(show_board(board, sort))
    for folder, reason in broken:
        console.print(f"left out: {folder}: {reason}", style="yellow", soft_wrap=True, markup=False)
    if not entries:
        console.print(f"{results} holds no entries.", markup=False)


@leaderboard_app.command()
def build(
    out: Annotated[Path, typer.Option(help="The site's folder; pages of an earlier build are written anew.")],
    results: Results = RESULTS,
) -> None:
    """Write the board as a static site: pages that need no server and no network.

    Open index.html, or put the folder on any static host. An entry with a fault is listed with the reason, and the
    others are built.
    """
    from .benchmark.errors import BadInput
    from .leaderboard.site.build import build_site

    if not results.is_dir():
        raise BadInput(f"There is no results store at {results}. Pass --results, or add an entry: it makes one.")
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "compare.html").is_file()):
        raise BadInput(
            f"{out} is {'a file' if out.is_file() else 'a folder with other files in it'}; a site needs a folder of "
            "its own. Give a new one, or that of an earlier build."
        )
    build_site(results, out, lambda words: console.print(words, soft_wrap=True, markup=False))
