"""The commands for an NLA's own files: serve it, write it out, check it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_options import NLA_SPEC, Device, DeviceMap, Dtype
from .cli_progress import say_lines
from .terminal import console

if TYPE_CHECKING:
    from .benchmark.nla.lint_finding import Finding


def serve(
    checkpoint: Annotated[str, typer.Argument(help=NLA_SPEC)],
    host: Annotated[str, typer.Option(help="The address to listen at; others reach all but loopback.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen at; 0 takes one that is free.")] = 30000,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
) -> None:
    """Serve an NLA over HTTP: SGLang's /generate for embeddings, and /describe for bare vectors.

    Clients of the released NLAs work against it unchanged; `nlabench run --verbalizer http://…` does too.
    """
    from .benchmark.nla.serve import serve as serve_nla

    try:
        serve_nla(
            checkpoint, host=host, port=port, device=device, dtype=dtype, device_map=device_map, say=say_lines(False)
        )
    except KeyboardInterrupt:
        console.print("Stopped.")


def export_checkpoint(
    checkpoint: Annotated[str, typer.Argument(help=NLA_SPEC)],
    out: Annotated[Path, typer.Option(help="Folder for av/ and ar/.")],
    dtype: Annotated[str, typer.Option(help="Of the weights: auto (float32), float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Write an NLA as full directories of the released contract, for transformers 4 and 5 and for SGLang."""
    from .benchmark.nla.export import export_checkpoint as write_checkpoint

    for folder in write_checkpoint(checkpoint, out, dtype=dtype, say=say_lines(False)):
        console.print(folder)


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

    report = look_at(checkpoint, weights=weights, fix=fix, say=say_lines(as_json))
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
