"""Ranks that say which entries can be told apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .estimate import Estimate, paired_difference
from .interval import interval_arrays


@dataclass(frozen=True)
class RankInterval:
    """The ranks that an entry may have; 1 is best, and two entries that cannot be told apart share one."""

    best: int
    worst: int


def rank_intervals(estimate: Estimate, level: float = 0.95) -> list[RankInterval]:
    """Rank intervals of the entries of `estimate`, point [n_entries], higher is better.

    An entry's best rank is 1 + the entries that beat it, its worst n - the entries that it beats; "beats" means that
    the paired difference's interval excludes 0 (Mogstad, Romano, Shaikh & Wilhelm 2024, "Inference for ranks", REStud
    91(1); here pairwise at `level`, not simultaneously over all pairs). Where the pairwise verdicts are not
    transitive, intervals widen until each pair that is not told apart shares a rank. A difference without an
    interval tells nothing apart. Raises ValueError for other than one set axis.
    """
    if estimate.point.ndim != 1:
        raise ValueError(f"The estimate has sets {list(estimate.point.shape)}; expected [n_entries].")
    n = len(estimate.point)
    estimate = replace(estimate, draws=None)  # not needed here, and large
    beats = np.zeros((n, n), dtype=bool)
    for i in range(n - 1):
        others = np.arange(i + 1, n)
        difference = paired_difference(estimate[[i] * len(others)], estimate[i + 1 :])
        low, high, _ = interval_arrays(difference, level)
        beats[i, others], beats[others, i] = low > 0, high < 0
    best, worst = 1 + beats.sum(axis=0), n - beats.sum(axis=1)
    together = ~(beats | beats.T)
    # Each pass only widens, so this ends; with transitive verdicts the first pass changes nothing.
    while (changed := np.where(together, worst[None, :], n).min(axis=1) < best).any():
        best = np.where(changed, np.where(together, worst[None, :], n).min(axis=1), best)
    return [RankInterval(int(b), int(w)) for b, w in zip(best, worst, strict=True)]
