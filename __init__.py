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
    from .checking import check

_HOME = {
    "ActivationBatch": "benchmark.activations", "Site": "benchmark.activations", "BadInput": "benchmark.errors",
    "check": "checking", "export_activations": "benchmark.exchange", "read_export": "benchmark.exchange",
    "score_file": "benchmark.exchange", "Result": "benchmark.records", "read_result": "benchmark.records",
    "RunSettings": "benchmark.runner", "run": "benchmark.runner", "Verbalization": "benchmark.verbalizers.base",
    "Verbalizer": "benchmark.verbalizers.base", "VerbalizerCard": "benchmark.verbalizers.base",
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
    "check",
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
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
