"""Which items a study's arms hold. Every function is deterministic: the same study gives the same items.

Items of an arm differ in what moved the activation and in nothing else; concept-free items are shared by all concepts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from .activations import Arm, Injection, ItemSpec, PositionKind, Readout
from .concepts import Concept
from .study import CONTROL_DRAWS, Study, matched_r


def token_matched_pairs(study: Study, kind: PositionKind = "function") -> list[tuple[str, Readout, Readout]]:
    """(concept, natural readout, neutral readout of the *same word*), for every natural text of the suite.

    kind: `function`, late in the text, or `mid`. Readout prompts are used evenly. A natural text none of whose function
    words occurs in a readout prompt is paired with its nearest kin: the least used prompt (this cannot happen with the
    built-in pack).
    """
    partners: dict[str, list[Readout]] = {}
    for prompt in study.readout_prompts:
        for readout in prompt.mid if kind == "mid" else prompt.function:
            partners.setdefault(readout.word, []).append(readout)
    every = [readout for readouts in partners.values() for readout in readouts]
    used: Counter[str] = Counter()
    pairs = []
    for concept in study.pack.concepts:
        here: Counter[str] = Counter()  # a concept's pairs spread over the prompts
        for natural_readouts in _natural_readouts(study, concept, kind):
            # (used by this concept, used by all, position, …): the least used prompt, and the latest word
            candidates = [
                (here[p.text_id], used[p.text_id], -natural.index, p.text_id, p.index, natural, p)
                for natural in natural_readouts
                for p in partners.get(natural.word, [])
            ]
            if not candidates:
                last = natural_readouts[-1]
                candidates = [(here[p.text_id], used[p.text_id], 0, p.text_id, p.index, last, p) for p in every]
            *_, natural, partner = min(candidates, key=lambda c: c[:5])
            used[partner.text_id] += 1
            here[partner.text_id] += 1
            pairs.append((concept.name, natural, partner))
    return pairs


def _natural_readouts(study: Study, concept: Concept, kind: PositionKind) -> Sequence[Sequence[Readout]]:
    """Per natural text of a concept, the readouts of a kind that one is chosen from."""
    texts = concept.texts["natural"]
    if kind == "mid":
        long = [study.texts[text.id].mid for text in texts]
        return [readouts for readouts in long if readouts][: study.suite.mid_per_concept]
    return [study.late_readouts(text.id) for text in texts[: study.suite.natural_per_concept]]


def crossing(study: Study) -> list[tuple[str, Readout]]:
    """(concept, neutral readout) of the grid: a balanced incomplete crossing, one fixed position per prompt.

    Concept i meets prompts i, i + s, i + 2s, … modulo their number, so that every prompt serves equally many concepts.
    """
    readouts = grid_readouts(study)
    per_concept = min(study.suite.prompts_per_concept, len(readouts))
    step = len(readouts) // per_concept
    return [
        (concept, readouts[(i + k * step) % len(readouts)])
        for i, concept in enumerate(study.pack.names)
        for k in range(per_concept)
    ]


def grid_readouts(study: Study) -> list[Readout]:
    """The position of each readout prompt that the grid is read at: its last function word."""
    return [prompt.function[-1] for prompt in study.readout_prompts]


def natural_items(study: Study, kind: PositionKind) -> list[ItemSpec]:
    """The natural arm at one kind of position."""
    if kind != "final":
        return [ItemSpec("natural", natural, concept=c) for c, natural, _ in token_matched_pairs(study, kind)]
    return [
        ItemSpec("natural", study.texts[text.id].final, concept=concept.name)
        for concept in study.pack.concepts
        for text in concept.texts["natural"][: study.suite.final_per_concept]
    ]


def matched_items(study: Study, injection: Injection, kind: PositionKind) -> list[ItemSpec]:
    """The steered arm at matched evidence, one item per natural item (upstream: per the first pairs of a concept).

    Concepts without a matched strength have none; `Study.exclusion` says why.
    """
    end: PositionKind = "final" if kind == "final" else "function"
    if (injection, end) not in study.matched:
        return []
    if kind == "final":
        prompts = study.readout_prompts
        pairs = [
            (item.concept or "", item.readout, prompts[i % len(prompts)].final)
            for i, item in enumerate(natural_items(study, "final"))
        ]
    else:
        pairs = token_matched_pairs(study, kind)
    if injection == "upstream":
        taken: Counter[str] = Counter()
        kept = []
        for pair in pairs:
            taken[pair[0]] += 1
            if taken[pair[0]] <= study.suite.upstream_pairs_per_concept:
                kept.append(pair)
        pairs = kept
    items = []
    for concept, natural, partner in pairs:
        r = matched_r(study, concept, injection, end)
        if r is not None:
            items.append(ItemSpec("steered", partner, injection, concept, round(r, 6), "matched", pair=natural))
    return items


def steered_grid(study: Study, injection: Injection) -> list[ItemSpec]:
    """The steered arm over the grid of r."""
    return [
        ItemSpec("steered", readout, injection, concept, r)
        for concept, readout in crossing(study)
        for r in _grid(study, injection)
    ]


def control_grid(study: Study, arm: Literal["permuted", "random", "graft"], injection: Injection) -> list[ItemSpec]:
    """A concept-free control over the same prompts and strengths, the draws taken in turn by the prompts."""
    return [
        ItemSpec(arm, readout, injection, None, r, draw=draw)
        for readout, draw in _draws(study, arm)
        for r in _grid(study, injection)
    ]


def matched_controls(study: Study, injection: Injection) -> list[ItemSpec]:
    """A permuted item beside every steered one at matched evidence: the same readout and r, another direction."""
    return [
        ItemSpec("permuted", item.readout, injection, None, item.r, "matched", draw=number % CONTROL_DRAWS)
        for number, item in enumerate(matched_items(study, injection, "function"))
    ]


def graft_concept_items(study: Study) -> list[ItemSpec]:
    """Toward a natural state of the concept: as far as matched evidence goes, and the full way (a natural state)."""
    items = []
    for concept, natural, partner in token_matched_pairs(study):
        if natural.text_id.endswith("/0"):
            r = matched_r(study, concept, "readout", "function")
            if r is not None:
                items.append(
                    ItemSpec("graft_concept", partner, "readout", concept, round(r, 6), "matched", pair=natural)
                )
            items.append(ItemSpec("graft_concept", partner, "readout", concept, 0.0, "full", pair=natural))
    return items


def neutral_items(study: Study, kind: PositionKind) -> list[ItemSpec]:
    """The readout prompts alone, at the grid's positions or at their last token."""
    if kind == "final":
        return [ItemSpec("neutral", prompt.final) for prompt in study.readout_prompts]
    return [ItemSpec("neutral", readout) for readout in grid_readouts(study)]


def mid_items(study: Study) -> list[ItemSpec]:
    """Readouts with text to follow: natural, steered at matched evidence and beyond, and their controls."""
    pairs = token_matched_pairs(study, "mid")
    strengths = study.suite.mid_strengths
    prompts = list(dict.fromkeys(partner for _, _, partner in pairs))
    items = natural_items(study, "mid") + matched_items(study, "readout", "mid")
    items += [ItemSpec("steered", partner, "readout", c, r) for c, _, partner in pairs for r in strengths]
    items += [
        ItemSpec("permuted", readout, "readout", None, r, draw=number % CONTROL_DRAWS)
        for number, readout in enumerate(prompts)
        for r in strengths
    ]
    return items + [ItemSpec("neutral", readout) for readout in prompts]


def gaussian_items(study: Study) -> list[ItemSpec]:
    """Isotropic noise of the stream's median norm: no prompt, no direction, nothing to see."""
    readouts = grid_readouts(study)
    return [ItemSpec("gaussian", readouts[i % len(readouts)], draw=i) for i in range(study.suite.gaussian_items)]


def _draws(study: Study, arm: Arm) -> list[tuple[Readout, int]]:
    """Each prompt with its control directions: two for the permuted arm, which is the primary control, else one."""
    per_prompt = 2 if arm == "permuted" else 1
    return [
        (readout, (number * per_prompt + k) % CONTROL_DRAWS)
        for number, readout in enumerate(grid_readouts(study))
        for k in range(per_prompt)
    ]


def _grid(study: Study, injection: Injection) -> Sequence[float]:
    return study.suite.upstream_strengths if injection == "upstream" else study.suite.strengths


ARMS: tuple[Arm, ...] = (
    "natural", "steered", "permuted", "random", "graft", "graft_concept", "neutral", "gaussian",
)  # fmt: skip
