"""NLAs on steered activations: the arm that the paper's authors announced and did not publish.

    python scripts/reproduce_nla_on_steered.py                     # nla:reference on the default subject, suite quick
    python scripts/reproduce_nla_on_steered.py --av kitft/nla-qwen2.5-7b-L20-av --ar kitft/nla-qwen2.5-7b-L20-ar \\
        --subject Qwen/Qwen2.5-7B-Instruct                         # the same on one GPU of 80 GB
    python scripts/reproduce_nla_on_steered.py … --estimate        # memory and time from the configurations alone

arXiv 2604.09839 holds no NLA experiment, and the public statement about NLAs came without a protocol. What is run here
is nlabench's own: `nlabench run`, with its controls, at matched evidence. Memory and time are estimated before any
weight is loaded. The same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from nla_on_steered.estimate import Machine, estimate_run
from nla_on_steered.tables import by_strength, compare, show_strengths, show_verbalizers
from nlabench.benchmark import runner
from nlabench.benchmark.engine import Progress
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.loading import DEFAULT_SUBJECT
from nlabench.benchmark.nla.checkpoint import REFERENCE, find_autoencoder
from nlabench.benchmark.planning import Plan
from nlabench.benchmark.runner import RunSettings
from nlabench.benchmark.store import write_atomically
from rich.console import Console
from rich.text import Text
from subject_arguments import check_dtype, check_layer, read_config

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def main(
    av: Annotated[str, typer.Option(help="The AV: `reference`, a folder or a hub id.")] = REFERENCE,
    ar: Annotated[str | None, typer.Option(help="Its AR, where it is not found with the AV.")] = None,
    subject: Annotated[str, typer.Option(help="What the NLA was made for.")] = DEFAULT_SUBJECT,
    layer: Annotated[int | None, typer.Option(help="The site, block K; default: the AV's own.")] = None,
    suite: Annotated[str, typer.Option(help="quick, standard, or a TOML file.")] = "quick",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    estimate: Annotated[bool, typer.Option("--estimate", help="Say memory and time, and stop.")] = False,
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("runs/nla-on-steered"),
) -> None:
    """Run nlabench for one NLA and print natural against steered, with the controls."""
    try:
        check_dtype(dtype)
        check_layer(subject, layer, read_config(subject, say), "upstream steering needs a block before the site")
        machine = Machine.here(device)
        foreseen = estimate_run(subject, av, ar, suite, machine, dtype)
        console.print(Text("\n".join(foreseen.describe(machine))))
        if estimate:
            return
        if machine.memory is not None and foreseen.memory > machine.memory:
            raise BadInput(
                f"{foreseen.memory / 1e9:.0f} GB are needed and {machine.name} has {machine.memory / 1e9:.0f} GB. Take "
                "a larger machine, or pass --dtype bfloat16; --estimate tells what another choice needs."
            )
        spec = f"{av},{ar}" if ar else av
        site = layer if layer is not None else find_autoencoder(spec).av.sidecar.extraction_layer_index
        settings = RunSettings(subject=subject, suite=suite, layer=site, dtype=dtype, device=device)
        result = runner.run(
            [f"nla:{spec}"], settings, out=out, say=say, report=Progressing().report, show_plan=show_plan
        )
    except BadInput as error:
        console.print(Text(str(error)))
        raise typer.Exit(2) from error
    name = next(name for name, v in result.verbalizers.items() if v.card["role"] == "submitted")
    rows, strengths = compare(result), by_strength(result, name)
    console.print(show_verbalizers(result, rows))
    if strengths:
        console.print(show_strengths(name, strengths))
    else:
        say("This suite does not ask upstream which concepts steer and are said: take quick or standard.")
    for sentence in result.findings:
        console.print(Text(f"- {sentence}"))
    record = {
        "command": sys.argv,
        "torch_threads": torch.get_num_threads(),
        "estimate": asdict(foreseen),
        "verbalizers": [asdict(row) for row in rows],
        "strengths": [asdict(row) for row in strengths],
        "findings": result.findings,
        "provenance": result.provenance.model_dump(mode="json"),
    }
    write_atomically(out / "nla_on_steered.json", json.dumps(record, indent=1, ensure_ascii=False))
    console.print(Text(f"{out / 'nla_on_steered.json'}; the whole run: {out / 'report.html'}"))


def say(line: str) -> None:
    console.print(Text(line))


def show_plan(plan: Plan, _: object) -> None:
    say(f"plan: {plan.n_items:,} items, about {plan.seconds / 60:.0f} min at the rates measured here, then scoring")


class Progressing:
    """A line every ten seconds. State: when the last one was written."""

    def __init__(self) -> None:
        self.last = 0.0

    def report(self, progress: Progress) -> None:
        if progress.done == progress.total or time.monotonic() - self.last >= 10:
            self.last = time.monotonic()
            say(f"{progress.stage}: {progress.done:,} of {progress.total:,}")


if __name__ == "__main__":
    typer.run(main)
