"""The commands that look at concept packs, and at the scorers that a pack makes."""

from __future__ import annotations

import typer

from .cli_options import PackArgument, PackSource
from .terminal import console

concepts_app = typer.Typer(no_args_is_help=True, help="Look at concept packs and check them.")


def validate_scorers(pack: PackSource = "core") -> None:
    """Test the scorers on texts written like what verbalizers write. Exit code 1 if one is below its gate."""
    from rich.table import Table

    from .benchmark.concepts import load_pack
    from .benchmark.scoring.base import load_scorers
    from .benchmark.scoring.validation import BEING_GATE, NAMING_GATE, validate_scorer

    chosen = load_pack(pack)
    found = [validate_scorer(scorer, chosen) for scorer in load_scorers(chosen)]
    table = Table(
        title=f"Scorers on the validation texts of {chosen.name!r} ({len(chosen.concepts)} concepts)",
        title_justify="left",
        caption=f"Macro AUROC. Gates: naming >= {NAMING_GATE}, being >= {BEING_GATE}, empty and all-concepts at 0.50. "
        "negated, stuffed and foreign are limits, not gates: a scorer that ignores negation gives 'not about x' to x.",
        caption_justify="left",
    )
    columns = ("naming", "being", "empty", "all_concepts", "negated", "stuffed", "foreign")
    for column in ("scorer", *columns, "sees least", "ranks"):
        table.add_column(column)
    for v in found:
        weakest = ", ".join(f"{name} {value:.2f}" for name, value in v.weakest[:2])
        table.add_row(v.scorer, *[f"{getattr(v, c):.2f}" for c in columns], weakest, "yes" if v.passes else "NO")
    console.print(table)
    if not all(v.forms_marked for v in found):
        console.print("The pack does not mark which validation texts name a concept: naming and being are one figure.")
    if not all(v.passes for v in found):
        raise typer.Exit(1)


@concepts_app.command("list")
def list_concepts(pack: PackArgument = "core") -> None:
    """The concepts of a pack by family, with their descriptions."""
    from .benchmark.concepts import load_pack

    chosen = load_pack(pack)
    for family in dict.fromkeys(chosen.families):
        console.print(f"[bold]{family}[/bold]")
        for concept in chosen.concepts:
            if concept.family == family:
                console.print(f"  {concept.name}: {concept.description}")


@concepts_app.command("check")
def check_concepts(pack: PackArgument = "core") -> None:
    """Check that a pack can carry a benchmark, and print what fails. Exit code 1 if anything does.

    A pack is JSONL with three kinds of line:

    {"kind": "concept", "name": "ocean", "title": "the ocean", "description": "…", "family": "topics"}

    {"kind": "text", "concept": "ocean", "purpose": "direction", "text": "…"}   (purposes: direction, probe, natural,
    scorer, validation; validation texts also have "form": "naming" or "being")

    {"kind": "neutral", "purpose": "readout", "text": "…"}   (purposes: direction, readout, scorer, reference)
    """
    from .benchmark.concepts import load_pack
    from .benchmark.pack_check import check_pack

    chosen = load_pack(pack)
    problems = check_pack(chosen)
    for problem in problems:
        console.print(f"[bold]{problem.where}[/bold]: {problem.what} {problem.fix}", soft_wrap=True)
    n_texts = sum(len(texts) for c in chosen.concepts for texts in c.texts.values())
    n_neutral = sum(map(len, chosen.neutral.values()))
    console.print(
        f"{chosen.name}: {len(chosen.concepts)} concepts, {n_texts} texts, {n_neutral} neutral prompts, "
        f"{len(problems)} problems"
    )
    if problems:
        raise typer.Exit(1)
