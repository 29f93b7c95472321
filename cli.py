"""The command line. Every command calls the function of the same name that Python users call."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .benchmark.errors import BadInput
from .cli_leaderboard import leaderboard_app, submit, validate
from .terminal import complaints, console

if TYPE_CHECKING:  # torch and transformers take seconds to import: --help must not wait for them
    from .benchmark.engine import Progress
    from .benchmark.nla.lint_finding import Finding
    from .benchmark.planning import Plan
    from .benchmark.runner import Bench, RunSettings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Does a verbalizer's text say what is in the activation, natural or steered?\n\n"
    "[bold]nlabench run[/bold] scores the built-in verbalizers on the default subject (a few minutes on two cores). "
    "[bold]nlabench run --verbalizer my_module:my_function[/bold] scores yours.",
)
concepts_app = typer.Typer(no_args_is_help=True, help="Look at concept packs and check them.")
app.add_typer(concepts_app, name="concepts")

app.add_typer(leaderboard_app, name="leaderboard")
app.command()(submit)
app.command()(validate)

Subject = Annotated[
    str, typer.Option(help="A built-in asset, a folder with a transformers checkpoint, or a hub id (id@revision).")
]
SuiteName = Annotated[str, typer.Option("--suite", help="quick, standard, or a TOML file (base = 'quick' fills in).")]
PACKS = "core (built in), sae-probes:NAME (labelled texts), a JSONL file, or a folder of them."
PackSource = Annotated[str, typer.Option("--pack", help=PACKS)]
PackArgument = Annotated[str, typer.Argument(help=PACKS)]
NLA_SPEC = "nla:reference, a folder (an AV, or with av/ and ar/ in it), AV,AR, or a hub id."
Layer = Annotated[
    int | None,
    typer.Option(help="The site: the stream after block K (hidden_states[K + 1]). Default: 2/3 of the depth."),
]
InjectionLayer = Annotated[
    int | None, typer.Option(help="The block after which upstream steering is added. Default: half the site's depth.")
]
Directions = Annotated[
    str | None,
    typer.Option(help="Directions of your own: .safetensors or .pt, one tensor per concept (\\[d] or [L, d])."),
]
Dtype = Annotated[str, typer.Option(help="auto (float32 on a CPU), float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the subject's checkpoint.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No plan and no progress; the result only.")]


@app.command()
def run(
    verbalizer: Annotated[
        list[str] | None,
        typer.Option(
            help="A built-in name (see `nlabench verbalizers`) or module:object; repeat for several. Default: all "
            "built-in ones. Floor, ceiling and the suite's readers of text always run beside."
        ),
    ] = None,
    suite: SuiteName = "quick",
    out: Annotated[Path, typer.Option(help="Folder for result.json, items.parquet and report.html.")] = Path(
        "runs/latest"
    ),
    subject: Subject = "smollm2-135m-instruct-q4_1",
    pack: PackSource = "core",
    layer: Layer = None,
    injection_layer: InjectionLayer = None,
    directions: Directions = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    trust_remote_code: TrustRemoteCode = False,
    evaluator: Annotated[
        str | None,
        typer.Option(
            help="A second NLA for the same site; its AR reads the texts of those that have one: evaluator swap."
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Where the work is done: local (this process) or ray (many; docs/cluster.md).")
    ] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="With --engine ray: the cluster, HOST:PORT. Default: one on this machine.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="With --engine ray: processes. Default: one per GPU, or per set of cores.")
    ] = None,
    chunk_timeout: Annotated[
        float | None,
        typer.Option(help="With --engine ray: seconds after which one piece of work counts as hung. Default: never."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Score verbalizers on natural and steered activations.

    Stop it at any moment and start it again: finished work is kept and is not done twice.
    """
    from .benchmark import runner
    from .benchmark.engine import EngineSettings
    from .benchmark.summary import summarize

    settings = _settings(
        subject, suite, pack, layer, injection_layer, directions, dtype, device, trust_remote_code, evaluator
    )
    result = runner.run(
        verbalizer or (), settings, out=out, say=_say(quiet), report=_reporter(quiet), show_plan=_plan_shower(quiet),
        engine=EngineSettings(engine, ray_address, workers, chunk_timeout),  # type: ignore[arg-type]  # it checks names
    )  # fmt: skip
    console.print(summarize(result))
    console.print(f"\nReport: {out / 'report.html'}   Numbers: {out / 'result.json'}   Texts: {out / 'items.parquet'}")


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Run folder; the blind file goes to its export/ folder.")],
    suite: SuiteName = "quick",
    subject: Subject = "smollm2-135m-instruct-q4_1",
    pack: PackSource = "core",
    layer: Layer = None,
    injection_layer: InjectionLayer = None,
    directions: Directions = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    trust_remote_code: TrustRemoteCode = False,
    quiet: Quiet = False,
) -> None:
    """Write a run's activations without labels, for a verbalizer that lives elsewhere.

    Verbalize OUT/export/activations.parquet (columns item_id, activation_vector), write one
    {"item_id": …, "text": …} a line, and hand the file to `nlabench score`.
    """
    from .benchmark import exchange

    settings = _settings(subject, suite, pack, layer, injection_layer, directions, dtype, device, trust_remote_code)
    file = exchange.export_activations(
        settings, out, say=_say(quiet), report=_reporter(quiet), show_plan=_plan_shower(quiet)
    )
    console.print(f"Blind activations: {file}\nNext: nlabench score {out} --texts verbalizations.jsonl --name NAME")


@app.command()
def score(
    run_folder: Annotated[Path, typer.Argument(help="The folder that `nlabench export` wrote.")],
    texts: Annotated[Path, typer.Option(help='JSONL of {"item_id": …, "text": …}, each exported item once.')],
    name: Annotated[str, typer.Option(help="The verbalizer's name in the result.")],
    version: Annotated[str, typer.Option(help="Its version.")] = "1",
    link: Annotated[str, typer.Option(help="Where it can be found.")] = "",
    licence: Annotated[str, typer.Option(help="Its licence.")] = "",
    training_data: Annotated[str, typer.Option(help="A sentence on what it was trained on.")] = "",
    quiet: Quiet = False,
) -> None:
    """Score the texts of a verbalizer that lives elsewhere."""
    from .benchmark import exchange
    from .benchmark.summary import summarize
    from .benchmark.verbalizers.base import VerbalizerCard

    if not texts.is_file():
        raise BadInput(
            f"There is no file of texts at {texts}. Write one JSON object per exported item, and pass its path."
        )
    card = VerbalizerCard(name=name, version=version, link=link, licence=licence, training_data=training_data)
    result = exchange.score_file(run_folder, texts, card, say=_say(quiet), report=_reporter(quiet))
    console.print(summarize(result))
    folder = exchange.scored_folder(run_folder, name)
    console.print(f"\nReport: {folder / 'report.html'}   Numbers: {folder / 'result.json'}")


@app.command()
def show(run_folder: Annotated[Path, typer.Argument(help="A folder with a result.json.")]) -> None:
    """Print the table of a run again."""
    from .benchmark.records import read_result
    from .benchmark.summary import summarize

    console.print(summarize(read_result(run_folder / "result.json")))


@app.command()
def check(
    baseline: Annotated[Path, typer.Option(help="A run's folder, or its result.json with items.parquet beside it.")],
    candidate: Annotated[Path, typer.Option(help="The run that is compared with it.")],
    margin: Annotated[float, typer.Option(help="The drop that is still fine, in the metrics' units.")] = 0.05,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="natural, steered, false_claims (the default), or task.metric:field=value,…; repeat for several."
        ),
    ] = None,
    verbalizer: Annotated[str | None, typer.Option(help="Whose texts, where several were under test.")] = None,
    baseline_verbalizer: Annotated[
        str | None, typer.Option(help="Its name in the baseline, where that is another.")
    ] = None,
    rescore: Annotated[
        bool, typer.Option("--rescore", help="Score the texts of both again, in the place of the stored scores.")
    ] = False,
    pack: Annotated[str | None, typer.Option(help=f"For --rescore, where the pack has moved: {PACKS}")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here: a test case per metric.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a summary for a pull request here.")] = None,
) -> None:
    """Is a candidate worse than a baseline? A paired test per metric, on the same items, against a margin.

    Exit code 0: pass, no metric lost the margin. 1: fail, one did. 3: cannot tell. 2: the runs cannot be compared.
    """
    from .benchmark.concepts import load_pack
    from .benchmark.store import write_atomically
    from .checking import check as compare
    from .leaderboard.regression_reports import show_comparison, write_junit, write_markdown

    comparison = compare(
        baseline, candidate, margin=margin, metrics=metric or (), verbalizer=verbalizer,
        baseline_verbalizer=baseline_verbalizer, rescore=rescore, pack=load_pack(pack) if pack else None,
    )  # fmt: skip
    console.print(show_comparison(comparison))
    for file, write in ((junit, write_junit), (markdown, write_markdown)):
        if file is not None:
            write_atomically(file, write(comparison))
    if comparison.exit_code:
        raise typer.Exit(comparison.exit_code)


@app.command("validate-scorers")
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


@app.command()
def verbalizers() -> None:
    """List the verbalizers that can be named."""
    from .benchmark.verbalizers.registry import known_verbalizers

    for name, build in sorted(known_verbalizers().items()):
        home = sys.modules[build.__module__].__doc__ or ""
        console.print(f"[bold]{name}[/bold]  {home.strip().splitlines()[0]}")
    console.print(
        "\nWrappers take the inner one after a colon (average-direction:logit-lens). Your own: module:object."
    )


@app.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Assets by name. Default: all but those with terms of their own.")
    ] = None,
) -> None:
    """Download the built-in subject, embedders, labelled texts and WordNet, by hash: a run then needs no network.

    gemma3-270m, a second subject, has terms of its own: it is fetched where it is named, and its terms are shown.
    """
    from .benchmark.assets import ASSETS, fetch_asset

    for name in names or [name for name, asset in ASSETS.items() if not asset.terms]:
        if name in ASSETS and ASSETS[name].terms:
            console.print(ASSETS[name].terms, markup=False)
        home = fetch_asset(name, _say(False), agreed=True)
        console.print(f"{name} ({ASSETS[name].licence}): {home}")


@app.command()
def serve(
    checkpoint: Annotated[str, typer.Argument(help=NLA_SPEC)],
    host: Annotated[str, typer.Option(help="The address to listen at; others reach all but loopback.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen at; 0 takes one that is free.")] = 30000,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Serve an NLA over HTTP: SGLang's /generate for embeddings, and /describe for bare vectors.

    Clients of the released NLAs work against it unchanged; `nlabench run --verbalizer http://…` does too.
    """
    from .benchmark.nla.serve import serve as serve_nla

    try:
        serve_nla(checkpoint, host=host, port=port, device=device, dtype=dtype, say=_say(False))
    except KeyboardInterrupt:
        console.print("Stopped.")


@app.command("export-checkpoint")
def export_checkpoint(
    checkpoint: Annotated[str, typer.Argument(help=NLA_SPEC)],
    out: Annotated[Path, typer.Option(help="Folder for av/ and ar/.")],
    dtype: Annotated[str, typer.Option(help="Of the weights: auto (float32), float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Write an NLA as full directories of the released contract, for transformers 4 and 5 and for SGLang."""
    from .benchmark.nla.export import export_checkpoint as write_checkpoint

    for folder in write_checkpoint(checkpoint, out, dtype=dtype, say=_say(False)):
        console.print(folder)


@app.command("lint-checkpoint")
def lint_checkpoint(
    checkpoint: Annotated[str, typer.Argument(help=NLA_SPEC + " An AR alone will do, too.")],
    fix: Annotated[
        bool, typer.Option("--fix", help="First mend what can be mended safely; a copy of each file is kept (.bak).")
    ] = False,
    weights: Annotated[
        bool, typer.Option(help="Read the values of the weights; without, a hub's are not downloaded.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON on the standard output.")] = False,
) -> None:
    """Check an NLA's files for the traps that NLAs have fallen into. No model is loaded.

    Exit code 0: no errors (there may be warnings). 1: at least one error. 2: no such checkpoint.
    """
    import dataclasses
    import json

    from .benchmark.nla.lint import lint_checkpoint as look_at

    report = look_at(checkpoint, weights=weights, fix=fix, say=_say(as_json))
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report), indent=2, ensure_ascii=False))
    else:
        for line in report.changed:
            console.print(f"changed  {line}", markup=False, soft_wrap=True)
        for finding in report.findings:
            _show_finding(finding)
        for line in (*report.halves, *report.notes):
            console.print(line, style="dim", markup=False, soft_wrap=True)
        n_warnings = len(report.findings) - report.n_errors
        mendable = sum(bool(finding.changes) for finding in report.findings)
        hint = f"; --fix mends {mendable}" if mendable and not fix else ""
        console.print(f"{report.n_errors} errors, {n_warnings} warnings{hint}")
    if report.n_errors:
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


def _show_finding(finding: Finding) -> None:
    from rich.text import Text

    from .benchmark.verbalizers.base import strip_controls

    where = f"{finding.file}: {finding.field}" if finding.field else finding.file
    rows = {"found": finding.found, "expected": finding.expected, "fix": finding.fix}
    colour = "red" if finding.severity == "error" else "yellow"
    console.print(Text.assemble((f"{finding.severity:<8} ", f"bold {colour}"), (strip_controls(where), "bold")))
    for name, text in rows.items():
        more = " (--fix)" if name == "fix" and finding.changes else ""
        console.print(Text(f"  {name:<9}{strip_controls(text)}{more}"), soft_wrap=True)


def _settings(
    subject: str,
    suite: str,
    pack: str,
    layer: int | None,
    injection_layer: int | None,
    directions: str | None,
    dtype: str,
    device: str,
    trust_remote_code: bool,
    evaluator: str | None = None,
) -> RunSettings:
    from .benchmark.runner import RunSettings

    known = ("auto", "float32", "bfloat16", "float16")
    if dtype not in known:
        raise BadInput(f"There is no dtype {dtype!r}. Choose one of {', '.join(known)}.")
    return RunSettings(
        subject=subject, suite=suite, pack=pack, layer=layer, injection_layer=injection_layer, directions=directions,
        dtype=dtype, device=device, trust_remote_code=trust_remote_code, evaluator=evaluator,
    )  # fmt: skip


def _say(quiet: bool) -> Callable[[str], None]:
    return (lambda _: None) if quiet else (lambda line: console.print(line, style="dim"))


def _plan_shower(quiet: bool) -> Callable[[Plan, Bench], None] | None:
    def show_plan(plan: Plan, bench: Bench) -> None:
        study = bench.sketch
        arms = ", ".join(f"{n} {arm}" for arm, n in plan.items_by_arm.items())
        vectors = f", vectors of texts {_minutes(plan.vector_seconds)}" if plan.vector_seconds else ""
        console.print(
            f"[bold]Plan[/bold]: {study.subject.name}, site {study.site.layer} of {study.subject.n_blocks} blocks, "
            f"upstream at {study.injection_layer}; {len(study.pack.names)} concepts, "
            f"{len(study.readout_prompts)} prompts\n"
            f"  {plan.n_items} items ({arms})\n"
            f"  {plan.tokens_read:,} tokens to read, {plan.answers} answers for the behaviour gate, "
            f"{plan.texts:,} texts\n"
            f"  about {_minutes(plan.seconds)} if nothing is in the store yet, at the rates measured here today "
            f"(reading {_minutes(plan.reading_seconds)}, gate {_minutes(plan.gate_seconds)}, texts "
            f"{_minutes(plan.text_seconds)}{vectors}), and scoring",
            soft_wrap=True,
        )

    return None if quiet else show_plan


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _reporter(quiet: bool) -> Callable[[Progress], None]:
    """Progress as a bar on a terminal, and as a line every ten seconds elsewhere."""
    if quiet:
        return lambda _: None
    state: dict[str, Any] = {"stage": "", "last": 0.0}

    def report(progress: Progress) -> None:
        finished = progress.done == progress.total
        now = time.monotonic()
        if progress.stage != state["stage"]:
            state.update(stage=progress.stage, last=now)
        if not finished and now - state["last"] < (0.2 if console.is_terminal else 10):
            return
        state["last"] = now
        rate = progress.fresh / progress.seconds if progress.seconds else 0.0
        speed = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate else "from the store"
        left = (progress.total - progress.done) / rate if rate else 0
        line = f"{progress.stage}: {progress.done:,} of {progress.total:,}, {speed}"
        line += f", {_minutes(left)} left" if left else ""
        # A carriage return and no newline: the line is written over until its stage ends.
        if console.is_terminal:
            console.print(f"\r\x1b[K{line}", end="\n" if finished else "", style="dim", soft_wrap=True)
        else:
            console.print(line, style="dim", soft_wrap=True)

    return report


def main() -> None:
    """The console script: a user's mistake is one paragraph and exit code 2."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Waiting threads sleep: on a machine whose cores are shared, spinning ones slow torch down several times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except BadInput as error:
        complaints.print(f"nlabench: {error}", style="red", soft_wrap=True, markup=False)
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        complaints.print(
            f"nlabench: the disk is full ({error}). Make room, or choose another folder (--out, or $NLABENCH_CACHE for "
            "the cache), and run the same command again: finished work is kept.",
            style="red",
            soft_wrap=True,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        complaints.print("Stopped. Finished work is kept: run the same command to go on.", style="yellow")
        sys.exit(130)


if __name__ == "__main__":
    main()
