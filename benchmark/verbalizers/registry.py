"""Finding a verbalizer by what the user wrote: a built-in name, an entry point, or `module:object`.

A built-in is a file in this folder with `VERBALIZERS = {name: build}`, where `build(study, argument)` returns a
verbalizer and `argument` is what follows a colon in the name (`average-direction:patchscope`). Where an argument can
be wrong in a way that shows without a subject, the file has `CHECKS = {name: check}` too, and `check(argument)` raises
BadInput. Someone else's package registers `build(site, argument)` under the entry point group `nlabench.verbalizers`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..study import Study
from .asking import Asked, QuestionAnswerer
from .base import TextReader, Verbalizer, check_made_for, wrap_function

Build = Callable[[Study, str], Any]

ENTRY_POINTS = "nlabench.verbalizers"


def known_verbalizers() -> dict[str, Build]:
    """Every built-in verbalizer and every one that an installed package offers, by name."""
    found: dict[str, Build] = _collect("VERBALIZERS")
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        found.setdefault(entry.name, _from_entry_point(entry))
    return found


def find_verbalizer(spec: str) -> Build:
    """The function that builds what a name stands for; cheap, so that a misspelt name or path is found before any work.

    Raises:
        BadInput: nothing of that name, an argument that its file refuses, or a module that cannot be imported.
    """
    name, _, argument = spec.partition(":")
    known = known_verbalizers()
    if name in known:
        _collect("CHECKS").get(name, lambda _: None)(argument)
        return known[name]
    if not argument:
        raise BadInput(
            f"There is no verbalizer {spec!r}. Known are {', '.join(sorted(known))}; or give `module:object` for a "
            "function or an object of your own."
        )
    here = str(Path.cwd())
    if here not in sys.path:  # a script beside the user, as `python -m` would find it
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(name), argument)
    except Exception as error:  # whatever the user's module does when it is imported
        raise BadInput(
            f"The verbalizer {spec!r} could not be imported: {type(error).__name__}: {error}. Known are "
            f"{', '.join(sorted(known))}; `module:object` is looked up from the current folder and the environment."
        ) from error
    return lambda study, argument: found


def load_verbalizer(spec: str | Any, study: Study) -> Verbalizer | TextReader:
    """The verbalizer that `spec` names (or is: an object or a bare function is taken as it is).

    Raises:
        BadInput: nothing of that name, an import that fails, an object that is no verbalizer, or one that was made for
            another subject, site or width.
    """
    found = find_verbalizer(spec)(study, spec.partition(":")[2]) if isinstance(spec, str) else spec
    if isinstance(found, type):
        found = found()
    if isinstance(found, QuestionAnswerer):
        found = Asked(found)
    if not isinstance(found, Verbalizer | TextReader):
        if not callable(found):
            raise BadInput(
                f"{spec!r} is a {type(found).__name__}, which is no verbalizer. Give a function from a list of vectors "
                "to a list of texts, or an object with `card` and `verbalize(batch)` (or `answer(batch, question)`)."
            )
        found = wrap_function(found)
    if isinstance(found, TextReader) and not type(found).__module__.startswith(__package__ or ""):
        raise BadInput(
            f"{spec!r} reads prompts. Only the benchmark's own readers may: a verbalizer sees vectors alone."
        )
    name = spec.partition(":")[0] if isinstance(spec, str) else ""
    author = type(found.answerer if isinstance(found, Asked) else found)
    ours = name in known_verbalizers() and author.__module__.startswith(__package__ or "")
    if not ours and (found.card.role != "submitted" or found.card.name.partition(":")[0] in known_verbalizers()):
        raise BadInput(
            f"The card of {spec!r} has the name {found.card.name!r} and the role {found.card.role!r}. Built-in names "
            "and the roles floor, ceiling, baseline and reader are the benchmark's own; choose another name and leave "
            "the role at 'submitted'."
        )
    check_made_for(found.card, study.site)
    checked: Verbalizer | TextReader = found
    return checked


def _collect(what: str) -> dict[str, Any]:
    """The entries of all files of this folder under one name."""
    package = importlib.import_module(__package__ or "")
    modules = [importlib.import_module(f"{__package__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    return {name: value for module in modules for name, value in getattr(module, what, {}).items()}


def _from_entry_point(entry: importlib.metadata.EntryPoint) -> Build:
    def build(study: Study, argument: str) -> Any:
        # Somebody else's verbalizer sees vectors and their site: the study holds the labels.
        return entry.load()(study.site, argument)

    return build
