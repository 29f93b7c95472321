"""The score matrix: texts x concepts, one per scorer, from which every concept metric is computed."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..concepts import ConceptPack
from ..engine import Progress, Report
from ..errors import BadInput
from ..large_arrays import allocate, take

Matrix = NDArray[np.float64]

ENTRY_POINTS = "nlabench.scorers"

#: The scorers of a run, the one that ranks first. The second shares its embedder with the first; the third is
#: independent of both.
DEFAULT_SCORERS = ("embedding", "classifier", "independent")


DIGITS = 5

#: Distinct texts that are scored at a time: as many as embeddings are remembered of, so that scorers share them.
TEXTS_AT_A_TIME = 50_000


@runtime_checkable
class Scorer(Protocol):
    """Scores texts against the concepts of the pack that it was built for.

    name, and a fingerprint of all that decides its scores (model, fitted texts, settings).
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def score(self, texts: Sequence[str]) -> Matrix:
        """[n_texts, n_concepts], float64, higher is more of the concept; the scale is the scorer's own."""
        ...


@dataclass(frozen=True)
class Standardized:
    """A scorer whose columns are centred and scaled on the neutral *reference* prompts.

    Without it a few "hub" descriptions win every row. AUROC, which compares within a column, does not see the
    difference; top-1 and MRR do.
    """

    scorer: Scorer
    centre: Matrix  # [n_concepts]
    scale: Matrix

    @property
    def name(self) -> str:
        return self.scorer.name

    @property
    def fingerprint(self) -> str:
        return self.scorer.fingerprint

    def score(self, texts: Sequence[str]) -> Matrix:
        return (self.scorer.score(texts) - self.centre) / self.scale


BuildScorer = Callable[[ConceptPack], Scorer]


def known_scorers() -> dict[str, BuildScorer]:
    """Every scorer that is built in or offered by an installed package, by name."""
    found: dict[str, BuildScorer] = {}
    package = importlib.import_module(__package__ or "")
    for module in pkgutil.iter_modules(package.__path__):
        found.update(getattr(importlib.import_module(f"{__package__}.{module.name}"), "SCORERS", {}))
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        found.setdefault(entry.name, entry.load())
    return found


def load_scorers(pack: ConceptPack, names: Sequence[str] = DEFAULT_SCORERS) -> list[Standardized]:
    """Build scorers for a pack and standardize them on its neutral *reference* prompts.

    Raises:
        BadInput: no scorer of that name.
    """
    known = known_scorers()
    reference = [text.text for text in pack.neutral["reference"]]
    loaded = []
    for name in names:
        if name not in known:
            raise BadInput(f"There is no scorer {name!r}. Known are {', '.join(sorted(known))}.")
        loaded.append(standardize(known[name](pack), reference))
    return loaded


def standardize(scorer: Scorer, reference: Sequence[str]) -> Standardized:
    """A scorer with its columns centred and scaled on reference texts."""
    scores = scorer.score(reference)
    return Standardized(scorer, scores.mean(0), np.maximum(scores.std(0, ddof=1), 1e-9))


def score_unique(
    scorers: Sequence[Scorer], texts: Sequence[str], report: Report = lambda _: None
) -> NDArray[np.float64]:
    """Score texts with every scorer, each distinct text once. Returns [n_scorers, n_texts, n_concepts], float64.

    Scores are rounded to DIGITS: an embedder in float32 differs in the seventh with the texts that share its batch, and
    what shares a batch must not decide a rank. What scoring takes in memory is bounded by TEXTS_AT_A_TIME.
    """
    number: dict[str, int] = {}
    rows = np.array([number.setdefault(text, len(number)) for text in texts], dtype=np.int64)
    distinct = list(number)
    found: list[NDArray[np.float64]] = []
    seconds = [0.0] * len(scorers)
    for start in range(0, len(distinct) or 1, TEXTS_AT_A_TIME):
        some = distinct[start : start + TEXTS_AT_A_TIME]
        for n, scorer in enumerate(scorers):
            stage, begun = f"scoring with {scorer.name} (distinct texts)", time.perf_counter()
            report(Progress(stage, start, len(distinct), start, seconds[n]))
            scores = np.round(scorer.score(some), DIGITS)
            if start == 0:
                found.append(allocate((len(distinct), scores.shape[1])))
            found[n][start : start + len(some)] = scores
            seconds[n] += time.perf_counter() - begun
            report(Progress(stage, start + len(some), len(distinct), start + len(some), seconds[n]))
    table = allocate((len(scorers), len(rows), found[0].shape[1]))
    for scores, out in zip(found, table, strict=True):
        take(scores, rows, out)
    return table
