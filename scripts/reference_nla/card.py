"""The model card and the log's curves. Every sentence with a number in it is written from the figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nlabench.benchmark.store import write_atomically

from .contract import TRAINED_ON

#: What the reference NLA was to reach on held-out text.
LEAST_GAP, LEAST_LEAD, MOST_IDENTICAL = 1.0, 0.15, 0.05

_HEAD = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
library_name: peft
tags: [natural-language-autoencoder, activation-verbalizer, interpretability]
---
# The reference NLA of nlabench

A Natural Language Autoencoder for `smollm2-135m-instruct-q4_1` (SmolLM2-135M-Instruct, dequantised from 4 bits), at
the residual stream after block 19 of 30 (`hidden_states[20]`). `av/` turns an activation into text, `ar/` the text back
into an activation. Both are low-rank adapters (PEFT, float16) over the subject itself; `nlabench export-checkpoint
nla:reference --out DIR` writes the merged directories of the released contract.

It is small, quickly trained and made to be measured: an honest entry to compare with, and no tool for an audit.

- **Training**: {recipe}. Made by `python scripts/train_reference_nla.py`; the log's curves are that script's.
- **Data**: {trained_on}. Half of the readouts follow the suite's neutral preamble, half another text's beginning; half
  are at function words. A check leaves out every text that shares a run of more than 7 words with the pack.
- **What it was taught to write**: the kind of text, up to three of its words of the highest tf-idf, and the last ten
  tokens up to the readout. Where the set that a document is from names a kind (a review, a message of worry, French),
  the text does.
- **Mind**: some of these kinds are concepts of nlabench's pack by name (five languages, Python, C and HTML, joy and
  sadness as "happiness" and "sadness", news). No text of the pack was seen, but these concepts have an easier time.

## On held-out documents

{n} documents that share no run of more than 7 words with any training document, one readout each; 95 % bootstrap
intervals over documents. FVE is the contract's (`fve_nrm`), its mean taken from {n_reference} other documents.
"""


def write_card(figures: dict[str, Any], file: Path) -> None:
    """Write the model card."""
    loss, fve, swap = figures["loss"], figures["fve_nrm"], figures["fve_nrm_swap"]
    head = _HEAD.format(
        recipe=figures["recipe"], trained_on=TRAINED_ON, n=figures["n"], n_reference=figures["n_reference"]
    )
    parts = [
        head,
        "| loss of the text to be written, nats a token (tags left out) | |\n|---|---|",
        *(f"| {name} | {_show(value)} |" for name, value in loss.items()),
        "",
        "| FVE of the reconstruction from | AR | a second AR of another seed (evaluator swap) |\n|---|---|---|",
        *(f"| {name} | {_show(value)} | {_show(swap[name]) if name in swap else '–'} |" for name, value in fve.items()),
        "",
        f"Distinct texts: {figures['distinct']:.1%}. Texts that are some other document's too: "
        f"{figures['identical_to_another']:.1%}.",
        "",
        "## Its targets",
        "",
        *(f"- {'met' if reached else '**missed**'}: {what}" for what, reached in judge(figures)),
        "- measured by the suite and not here: natural identification above the floors and `logit-lens` on `quick` "
        "(the repository's README; `nlabench run` says it of every run)",
        "",
        f"## {len(figures['examples'])} examples, the first in a random order",
        "",
        *(
            f"{number}. *{_escape(example['source'])}*\n   - to be written: {_escape(example['to_be_written'])}\n"
            f"   - written: {_escape(example['written'])}"
            for number, example in enumerate(figures["examples"], 1)
        ),
        "",
        "## Limits",
        "",
        "Its wording is a guess in the spirit of the text, often wrong in every detail; its themes are single words. "
        "It writes a text of every vector, also where nothing is there. What the benchmark says of it, natural and "
        "steered, is in the repository's README.",
        "",
        "Apache-2.0, as is its base. The texts that it learned from are not part of it.",
    ]
    write_atomically(file, "\n".join(parts) + "\n")


def judge(figures: dict[str, Any]) -> list[tuple[str, bool]]:
    """Each target in words, and whether the held-out figures reach it."""
    fve = figures["fve_nrm"]
    texts = {"the AV's text", "the text that was to be written"}
    best = max((name for name in fve if name not in texts), key=lambda name: fve[name][0])
    lead = fve["the AV's text"][0] - fve[best][0]
    gap, same = figures["loss"]["gap"][0], figures["identical_to_another"]
    return [
        (f"another item's vector costs at least {LEAST_GAP} nats a token ({gap:.2f})", gap >= LEAST_GAP),
        (f"FVE at least {LEAST_LEAD} above the best control ({lead:+.2f} above {best})", lead >= LEAST_LEAD),
        (f"fewer than {MOST_IDENTICAL:.0%} of texts are another item's too ({same:.1%})", same < MOST_IDENTICAL),
    ]


def plot_curves(out: Path, file: Path) -> None:
    """The losses of every stage that left a log, against its steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    logs = {path.parent.name: [json.loads(line) for line in path.open()] for path in sorted(out.glob("*/log.jsonl"))}
    figure, axes = plt.subplots(1, len(logs), figsize=(4 * len(logs), 3.2), squeeze=False, layout="constrained")
    for axis, (stage, rows) in zip(axes[0], logs.items(), strict=True):
        for name in ("loss", "held_out", "shuffled", "reward"):
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points:
                label = {"held_out": "held out", "shuffled": "held out, another item's vector"}.get(name, name)
                axis.plot(*zip(*points, strict=True), label=label, linewidth=1, alpha=0.5 if name == "loss" else 1)
        axis.set_title(stage)
        axis.set_xlabel("step")
        axis.legend(fontsize=7)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _show(value: Sequence[float]) -> str:
    middle, low, high = value
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def _escape(text: str) -> str:
    """A text as one line of Markdown, nothing in it a mark-up."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|" else c for c in " ".join(text.split()))
