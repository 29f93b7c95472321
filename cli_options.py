"""Options that commands share, each worded once."""

from __future__ import annotations

from typing import Annotated

import typer

PACKS = "core (built in), sae-probes:NAME (labelled texts), a JSONL file, or a folder of them."
PackSource = Annotated[str, typer.Option("--pack", help=PACKS)]
PackArgument = Annotated[str, typer.Argument(help=PACKS)]
NLA_SPEC = "nla:reference, a folder (an AV, or with av/ and ar/ in it), AV,AR, or a hub id."
Dtype = Annotated[str, typer.Option(help="auto (float32 on a CPU), float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")]
DeviceMap = Annotated[
    str | None,
    typer.Option(help="A model larger than one GPU: auto, balanced, or a JSON file (module: GPU, cpu or disk)."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No plan and no progress; the result only.")]
