"""A recorded run's settings, so that another verbalizer can be run as that one was."""

from __future__ import annotations

import json
from pathlib import Path

from .records import Result
from .runner import RunSettings
from .store import write_atomically
from .suites import SUITES


def repeat_settings(result: Result, folder: Path) -> RunSettings:
    """The settings of a result's run: its suite, subject, site, pack, directions, dtype and scorers.

    folder: where a suite that is not built in is written. The device is chosen anew, and code that comes with a
    checkpoint is not trusted because a file says so.

    Raises:
        BadInput: the suite's file cannot be written.
    """
    provenance, given = result.provenance, result.provenance.arguments
    settings = {name: given[name] for name in ("subject", "pack", "directions", "evaluator") if name in given}
    return RunSettings(
        suite=_name_suite(result, folder),
        layer=provenance.layer,
        injection_layer=provenance.injection_layer,
        dtype=provenance.dtype,
        scorers=tuple(scorer.name for scorer in result.scorers),
        **settings,
    )


def _name_suite(result: Result, folder: Path) -> str:
    """The name of a built-in suite, or a file of the recorded one: a later version of a name is another suite."""
    recorded = result.provenance.suite
    built_in = SUITES.get(str(recorded["name"]))
    if built_in is not None and built_in.model_dump(mode="json") == recorded:
        return built_in.name
    file = folder / "suite.toml"
    # Strings, numbers and lists of them are written alike in JSON and in TOML.
    write_atomically(file, "".join(f"{name} = {json.dumps(value)}\n" for name, value in recorded.items()))
    return str(file)
