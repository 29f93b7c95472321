"""A study that nobody made: items, texts and scores drawn from a seed, laid out as a run's are. It has no model.

No figure that comes of it says anything about a verbalizer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from nlabench.benchmark.large_arrays import allocate
from nlabench.benchmark.scored import Design
from nlabench.benchmark.scoring.base import DIGITS
from nlabench.benchmark.statistics import resample
from numpy.typing import NDArray

#: Under test, the ceiling that dose_response measures r50 by, and the floor.
ROLES = {"synthetic": "submitted", "probe-ceiling": "ceiling", "constant": "floor"}
#: The grids of the suite `quick`.
STRENGTHS = {"readout": (0.1, 0.3, 0.5, 1.0, 2.0), "upstream": (0.3, 1.0)}
N_GRID = sum(map(len, STRENGTHS.values()))
DRAWS = 8
#: Items whose scores are drawn at a time; part of the seed.
DRAWN_AT_A_TIME = 10_000
WORDS = [
    "the", "and", "of", "in", "with", "a", "to", "for", "on", "river", "letter", "harbour", "winter", "copper",
    "lantern", "quiet", "anger", "sailing", "ledger", "kitchen", "proof", "garden", "machine", "question", "colour",
    "distance", "promise", "market", "village", "thunder", "paper", "silver",
]  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How large a synthetic study is. A concept meets a quarter of the prompts, as in the built-in suites."""

    concepts: int
    prompts: int

    @property
    def prompts_per_concept(self) -> int:
        return max(2, self.prompts // 4)

    @property
    def naturals_per_concept(self) -> int:
        return max(1, self.prompts_per_concept // 2)

    @property
    def n_items(self) -> int:
        """Steered, two permuted and a random one over the grid; natural, steered and permuted in pairs; neutral."""
        grid = self.concepts * self.prompts_per_concept + 3 * self.prompts
        return N_GRID * grid + 3 * self.concepts * self.naturals_per_concept + self.prompts


def plan_study(n_items: int, concepts: int) -> Plan:
    """The smallest study of these concepts that has at least so many items: more items are more prompts and texts."""
    low, high = 1, 2
    while Plan(concepts, high).n_items < n_items:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if Plan(concepts, middle).n_items >= n_items else (middle, high)
    return Plan(concepts, high)


def draw_labels(plan: Plan, seed: int = 0) -> pd.DataFrame:
    """The items' labels (see `item_table.LABELS`), in the order of their ids, which are drawn."""
    rng = np.random.default_rng([seed, 0])
    concepts, prompts = np.arange(plan.concepts), np.arange(plan.prompts)
    step = max(1, plan.prompts // plan.prompts_per_concept)
    crossed = (concepts[:, None] + step * np.arange(plan.prompts_per_concept)) % plan.prompts
    of, at = np.repeat(concepts, crossed.shape[1]), crossed.ravel()
    parts = []
    for injection, grid in STRENGTHS.items():
        for r in grid:
            parts.append(_part("steered", injection, "grid", of, at, r))
            parts += [_part("permuted", injection, "grid", None, prompts, r, (2 * prompts + k) % DRAWS) for k in (0, 1)]
            parts.append(_part("random", injection, "grid", None, prompts, r, prompts % DRAWS))
    texts = np.tile(np.arange(plan.naturals_per_concept), plan.concepts)
    owners = np.repeat(concepts, plan.naturals_per_concept)
    own, partner = _natural_prompts(owners, texts), (owners + 3 * texts) % plan.prompts
    natural = _part("natural", "none", "grid", owners, texts, 0.0)
    natural["prompt"] = own
    pairs = _part("steered", "readout", "matched", owners, partner, 0.2)
    pairs["pair"] = np.char.add(own.astype(str), "@5").astype(object)
    parts += [natural, pairs, _part("permuted", "readout", "matched", None, partner, 0.2, texts % DRAWS)]
    parts.append(_part("neutral", "none", "grid", None, prompts, 0.0))
    labels = pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)
    n = len(labels)
    drawn = rng.bytes(8 * n).hex()
    norm = rng.lognormal(3, 0.1, n)
    labels = labels.assign(
        item_id=sorted(drawn[16 * i : 16 * i + 16] for i in range(n)),
        norm=norm, unsteered_norm=norm, displacement=labels["r"], angle=60 * np.minimum(labels["r"], 1.0),
        evidence=np.where(labels["concept"].isna(), np.nan, rng.normal(0.1, 0.02, n)),
        outlier=rng.random(n) < 0.002,
    )  # fmt: skip
    order = rng.permutation(n)  # ids are opaque: arms lie mixed
    ids = labels["item_id"]
    return labels.iloc[order].reset_index(drop=True).assign(item_id=ids)


def _part(
    arm: str,
    injection: str,
    level: str,
    concepts: NDArray[np.int64] | None,
    prompts: NDArray[np.int64],
    r: float,
    draws: NDArray[np.int64] | None = None,
) -> dict[str, object]:
    names = None if concepts is None else np.array([f"concept-{c}" for c in range(concepts.max() + 1)], object)
    return {
        "arm": arm, "injection": injection, "level": level, "concept": None if names is None else names[concepts],
        "prompt": np.array([f"neutral/readout/{p}" for p in range(prompts.max() + 1)], object)[prompts],
        "position": np.full(len(prompts), 5), "kind": "function", "word": "of", "r": r,
        "draw": np.zeros(len(prompts), np.int64) if draws is None else draws, "pair": None,
    }  # fmt: skip


def _natural_prompts(owners: NDArray[np.int64], texts: NDArray[np.int64]) -> NDArray[np.object_]:
    return np.array([f"concept-{c}/natural/{t}" for c, t in zip(owners, texts, strict=True)], object)


def draw_texts(labels: pd.DataFrame, seed: int = 0) -> dict[str, list[str]]:
    """What each says: the synthetic one fourteen words, drawn, the ceiling what concept it is, the floor one text."""
    numbers = number_concepts(labels)
    drawn = draw_sentences(len(labels), seed)
    known = [f"This is about the concept of number {c}." if c >= 0 else "This is about nothing." for c in numbers]
    return {"synthetic": drawn, "probe-ceiling": known, "constant": ["The text goes on."] * len(labels)}


def draw_sentences(n: int, seed: int = 0) -> list[str]:
    """So many texts of fourteen words; hardly two of them are the same."""
    chosen = np.random.default_rng([seed, 1]).integers(0, len(WORDS), (n, 14))
    return [" ".join([WORDS[i] for i in row]) for row in chosen.tolist()]


def draw_scores(labels: pd.DataFrame, concepts: int, n_scorers: int, seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """Standardized scores by verbalizer [n_scorers, n_items, concepts]: noise, and the item's own concept above it.

    The floor's are the same in every row, as those of one text are.
    """
    numbers = number_concepts(labels)
    own = np.flatnonzero(numbers >= 0)
    strength = np.where(labels["arm"] == "natural", 0.5, np.minimum(labels["r"], 1.0)).astype(np.float64)
    scores = {}
    for number, (name, lift) in enumerate({"synthetic": 1.0, "probe-ceiling": 4.0}.items()):
        rng = np.random.default_rng([seed, 2, number])
        table = allocate((n_scorers, len(labels), concepts))
        for start in range(0, len(labels), DRAWN_AT_A_TIME):
            block = table[:, start : start + DRAWN_AT_A_TIME]
            mine = own[(own >= start) & (own < start + DRAWN_AT_A_TIME)]
            drawn = rng.standard_normal(block.shape)
            drawn[:, mine - start, numbers[mine]] += lift * strength[mine]
            np.round(drawn, DIGITS, out=block)
        scores[name] = table
    return {**scores, "constant": allocate((n_scorers, len(labels), concepts))}


def number_concepts(labels: pd.DataFrame) -> NDArray[np.int64]:
    """Each item's concept's number; -1 for an item of no concept."""
    numbers = labels["concept"].str.removeprefix("concept-").fillna("-1")
    return numbers.to_numpy().astype(np.int64)


def describe(plan: Plan, resamples: int, seed: int = 0) -> Design:
    """What the panel is made of beside its items."""
    names = [f"concept-{c}" for c in range(plan.concepts)]
    return Design(
        concepts=names,
        families=[f"family-{c % 4}" for c in range(plan.concepts)],
        readout_prompts=[f"neutral/readout/{p}" for p in range(plan.prompts)],
        roles=ROLES,
        excluded={"readout/function": dict.fromkeys(names, "")},
        weights=resample(plan.concepts, plan.prompts, resamples, seed),
    )
