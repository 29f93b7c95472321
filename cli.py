"""The command line. Every command calls the function of the same name that Python users call."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .benchmark.errors import BadInput
from .cli_concepts import concepts_app, validate_scorers
from .cli_leaderboard import leaderboard_app, submit, validate
from .cli_nla import export_checkpoint, lint_checkpoint, serve
from .cli_options import PACKS, Device, DeviceMap, Dtype, PackSource, Quiet
from .cli_progress import plan_lines, report_lines, say_lines
from .terminal import complaints, console

if TYPE_CHECKING:  # torch and transformers take seconds to import: --help must not wait for them
    from .benchmark.runner import RunSettings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Does a verbalizer's text say what is in the activation, natural or steered?\n\n"
    "[bold]nlabench run[/bold] scores the built-in verbalizers on the default subject (a few minutes on two cores). "
    "[bold]nlabench run --verbalizer my_module:my_function[/bold] scores yours.",
)

Subject = Annotated[
    str, typer.Option(help="A built-in asset, a folder with a transformers checkpoint, or a hub id (id@revision).")
]
SuiteName = Annotated[str, typer.Option("--suite", help="quick, standard, or a TOML file (base = 'quick' fills in).")]
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
Quantize = Annotated[
    str | None, typer.Option(help="4bit: weights of linear maps by bitsandbytes (pip install 'nlabench\\[bnb]').")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the subject's checkpoint.")
]


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
    device_map: DeviceMap = None,
    quantize: Quantize = None,
    evaluator: Annotated[
        str | None,
        typer.Option(
            help="A second NLA for the same site; its AR reads the texts of those that have one: evaluator swap."
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Where the work is done: local (this process) or ray (many; docs/cluster.md)."),
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
        subject, suite, pack, layer, injection_layer, directions, dtype, device, trust_remote_code, evaluator,
        device_map, quantize,
    )  # fmt: skip
    result = runner.run(
        verbalizer or (), settings, out=out,
        say=say_lines(quiet), report=report_lines(quiet), show_plan=plan_lines(quiet),
        engine=EngineSettings(engine, ray_address, workers, chunk_timeout),
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
    device_map: DeviceMap = None,
    quantize: Quantize = None,
    quiet: Quiet = False,
) -> None:
    """Write a run's activations without labels, for a verbalizer that lives elsewhere.

    Verbalize OUT/export/activations.parquet (columns item_id, activation_vector), write one
    {"item_id": …, "text": …} a line, and hand the file to `nlabench score`.
    """
    from .benchmark import exchange

    settings = _settings(
        subject, suite, pack, layer, injection_layer, directions, dtype, device, trust_remote_code, None, device_map,
        quantize,
    )  # fmt: skip
    file = exchange.export_activations(
        settings, out, say=say_lines(quiet), report=report_lines(quiet), show_plan=plan_lines(quiet)
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
    result = exchange.score_file(run_folder, texts, card, say=say_lines(quiet), report=report_lines(quiet))
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


app.command()(submit)
app.command()(validate)
app.command("validate-scorers")(validate_scorers)


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
        home = fetch_asset(name, say_lines(False), agreed=True)
        console.print(f"{name} ({ASSETS[name].licence}): {home}")


app.command()(serve)
app.command("export-checkpoint")(export_checkpoint)
app.command("lint-checkpoint")(lint_checkpoint)
app.add_typer(concepts_app, name="concepts")
app.add_typer(leaderboard_app, name="leaderboard")


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
    evaluator: str | None,
    device_map: str | None,
    quantize: str | None,
) -> RunSettings:
    from .benchmark.runner import RunSettings

    known = ("auto", "float32", "bfloat16", "float16")
    if dtype not in known:
        raise BadInput(f"There is no dtype {dtype!r}. Choose one of {', '.join(known)}.")
    return RunSettings(
        subject=subject, suite=suite, pack=pack, layer=layer, injection_layer=injection_layer, directions=directions,
        dtype=dtype, device=device, trust_remote_code=trust_remote_code, evaluator=evaluator, device_map=device_map,
        quantize=quantize,
    )  # fmt: skip


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
