"""nlabench: does a verbalizer's text say what is in the activation, natural or steered?

    import nlabench
    result = nlabench.run([my_verbalizer], nlabench.RunSettings(suite="quick"), out="runs/mine")

`my_verbalizer` may be a bare function from a list of vectors to a list of texts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .benchmark.activations import ActivationBatch, Site
    from .benchmark.errors import BadInput
    from .benchmark.exchange import export_activations, read_export, score_file
    from .benchmark.records import Result, read_result
    from .benchmark.runner import RunSettings, run
    from .benchmark.verbalizers.base import Verbalization, Verbalizer, VerbalizerCard

_HOME = {
    "ActivationBatch": "activations", "Site": "activations", "BadInput": "errors",
    "export_activations": "exchange", "read_export": "exchange", "score_file": "exchange",
    "Result": "records", "read_result": "records", "RunSettings": "runner", "run": "runner",
    "Verbalization": "verbalizers.base", "Verbalizer": "verbalizers.base", "VerbalizerCard": "verbalizers.base",
}  # fmt: skip

__all__ = [
    "ActivationBatch",
    "BadInput",
    "Result",
    "RunSettings",
    "Site",
    "Verbalization",
    "Verbalizer",
    "VerbalizerCard",
    "export_activations",
    "read_export",
    "read_result",
    "run",
    "score_file",
]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: torch and transformers take seconds, and `nlabench --help` needs neither.
    if name not in _HOME:
        raise AttributeError(f"module 'nlabench' has no attribute {name!r}")
    return getattr(import_module(f".benchmark.{_HOME[name]}", __name__), name)
