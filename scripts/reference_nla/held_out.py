"""What the reference NLA does on text that training never saw, beside the controls that expose an empty one.

Every number is over distinct documents (one readout of each), with a 95 % bootstrap interval over them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nlabench.benchmark.activations import ActivationBatch, Site
from nlabench.benchmark.nla.checkpoint import Checkpoint
from nlabench.benchmark.nla.fidelity import mse_nrm, normalize_vectors, spread_nrm
from nlabench.benchmark.nla.reconstructor import NLAReconstructor, load_reconstructor
from nlabench.benchmark.nla.sidecar import read_sidecar
from nlabench.benchmark.verbalizers.nla import NLAPair, load_nla
from torch import Tensor

from .examples import Examples
from .trainees import CLOSING, OPENING, Actor

ROWS, RESAMPLES, EXAMPLES_SHOWN = 64, 2000, 20

#: What a text says that says nothing of its vector.
CONSTANT = "A short piece of text."

Interval = tuple[float, float, float]  # value, low, high


def evaluate(
    pair: Path, swap: Path, actor: Actor, held_out: Examples, reference: Examples, say: Callable[[str], None]
) -> dict[str, Any]:
    """Every figure of the model card. pair: a folder with av/ and ar/; swap: a second AR; actor: the AV as trained."""
    nla = load_nla(str(pair))
    assert isinstance(nla, NLAPair)
    site = Site(str(nla.card.subject), int(nla.card.layer or 0), held_out.vectors.shape[1])
    vectors, n = held_out.vectors, len(held_out)
    gold_texts = [example.explanation for example in held_out.examples]
    say(f"held out: the AV's text for {n} vectors, and for the same with their coordinates shuffled")
    texts = verbalize(nla, vectors, site)
    order = torch.randperm(vectors.shape[1], generator=torch.Generator().manual_seed(0))
    scrambled = verbalize(nla, vectors[:, order], site)
    rock = verbalize(nla, reference.vectors.mean(0, keepdim=True), site)[0]
    say("held out: reconstructing")
    mean = normalize_vectors(reference.vectors).mean(0)
    first, second = nla.reconstructor, load_reconstructor(Checkpoint(swap, read_sidecar(swap)))
    controls = {
        "rock (the AV's text for the mean vector)": [rock] * n,
        "mismatched text (another item's)": texts[1:] + texts[:1],
        "constant text": [CONSTANT] * n,
        "shuffled vector (the AV's text for it)": scrambled,
    }
    fve = {
        "the AV's text": _fve(first, texts, vectors, mean, site),
        "the text that was to be written": _fve(first, gold_texts, vectors, mean, site),
        **{name: _fve(first, said, vectors, mean, site) for name, said in controls.items()},
    }
    return {
        "n": n,
        "n_reference": len(reference),
        "loss": _losses(actor, held_out),
        "fve_nrm": fve,
        "fve_nrm_swap": {
            "the AV's text": _fve(second, texts, vectors, mean, site),
            "the text that was to be written": _fve(second, gold_texts, vectors, mean, site),
        },
        "distinct": len(set(texts)) / n,
        "identical_to_another": sum(texts.count(text) > 1 for text in texts) / n,
        "examples": [
            {"source": example.source, "to_be_written": example.explanation, "written": text}
            for example, text in list(zip(held_out.examples, texts, strict=True))[:EXAMPLES_SHOWN]
        ],
    }


def verbalize(nla: NLAPair, vectors: Tensor, site: Site) -> list[str]:
    """The AV's greedy text for each vector [n, d_model]."""
    parts = vectors.split(ROWS)
    return [answer.text for part in parts for answer in nla.verbalize(ActivationBatch(part.clone(), site))]


def bootstrap_ratio(over: Sequence[float], under: Sequence[float], seed: int = 0) -> Interval:
    """sum(over) / sum(under) with its 95 % percentile interval over resampled items."""
    above, below = np.asarray(over), np.asarray(under)
    drawn = np.random.default_rng(seed).integers(0, len(above), (RESAMPLES, len(above)))
    ratios = above[drawn].sum(1) / below[drawn].sum(1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(above.sum() / below.sum()), float(low), float(high)


def _fve(ar: NLAReconstructor, texts: Sequence[str], golds: Tensor, mean: Tensor, site: Site) -> Interval:
    left = mse_nrm(ar.reconstruct(texts, site), golds)
    value, low, high = bootstrap_ratio(left.tolist(), spread_nrm(golds, mean).tolist())
    return 1 - value, 1 - high, 1 - low


@torch.no_grad()
def _losses(actor: Actor, held_out: Examples) -> dict[str, Interval]:
    """Nats per token of the explanation (its tags left out), with the item's own vector and with another item's."""
    head, tail = len(actor.subject.encode(OPENING)), len(actor.subject.encode(CLOSING)) + 1
    sums: dict[str, list[float]] = {"own": [], "other": []}
    tokens: list[float] = []
    for start in range(0, len(held_out), ROWS):
        part = slice(start, start + ROWS)
        targets = [actor.target_ids(example.explanation) for example in held_out.examples[part]]
        counts = [len(target) - head - tail for target in targets]
        for name, vectors in (("own", held_out.vectors), ("other", held_out.vectors.roll(1, 0))):
            chosen, _ = actor.log_probabilities(vectors[part], targets)
            sums[name] += [-float(chosen[i, head : head + count].sum()) for i, count in enumerate(counts)]
        tokens += map(float, counts)
    gap = [other - own for own, other in zip(sums["own"], sums["other"], strict=True)]
    return {
        "own vector": bootstrap_ratio(sums["own"], tokens),
        "another item's vector": bootstrap_ratio(sums["other"], tokens),
        "gap": bootstrap_ratio(gap, tokens),
    }
