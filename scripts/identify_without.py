"""A run's concept identification without some concepts: does a verbalizer live on what its training named?

python scripts/identify_without.py runs/latest french german python joy sadness
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from nlabench.benchmark.records import read_result
from nlabench.benchmark.statistics import (
    Clusters,
    Estimate,
    Interval,
    intervals,
    macro_auroc,
    paired_difference,
    resample,
)
from nlabench.benchmark.verbalizers.asking import QUESTION


def main(
    run_folder: Annotated[Path, typer.Argument(help="A folder with result.json and items.parquet.")],
    without: Annotated[list[str], typer.Argument(help="The concepts to leave out, as own and as other items.")],
    verbalizer: Annotated[str, typer.Option(help="Whose figures.")] = "nla:reference",
) -> None:
    """AUROC at function words on the concepts that are left, and leads over the baselines on the same natural items."""
    result, items = read_result(run_folder / "result.json"), pd.read_parquet(run_folder / "items.parquet")
    concepts = [concept.name for concept in result.concepts]
    unknown = sorted(set(without) - set(concepts))
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)} is no concept of this run. It has {', '.join(concepts)}.")
    kept = [name for name in concepts if name not in without]
    print(f"{verbalizer}, scorer {result.headline_scorer}, {len(kept)} of {len(concepts)} concepts")
    if "question" in items:  # answers to another task's own question are other texts
        items = items[items["question"].isna() | (items["question"] == QUESTION)]
    usable = items[(items["kind"] == "function") & ~items["outlier"] & items["concept"].isin(kept)]
    natural = usable[usable["arm"] == "natural"]
    baselines = [name for name, v in result.verbalizers.items() if v.card["role"] == "baseline"]
    own, *others = (
        _identify(natural, name, concepts, kept, result.headline_scorer) for name in (verbalizer, *baselines)
    )
    print(f"natural: {_show(intervals(own)[0])}")
    for name, other in zip(baselines, others, strict=True):
        print(f"  over {name}: {_show(intervals(paired_difference(own, other))[0], '+')}")
    steered = usable[(usable["arm"] == "steered") & (usable["injection"] == "readout") & (usable["level"] == "grid")]
    for r, at in steered.groupby("r"):
        print(
            f"steered, r {r}: {_show(intervals(_identify(at, verbalizer, concepts, kept, result.headline_scorer))[0])}"
        )


def _identify(
    items: pd.DataFrame, verbalizer: str, concepts: Sequence[str], kept: Sequence[str], scorer: str
) -> Estimate:
    """Macro AUROC of one verbalizer on items of one arm (and one r), over the kept columns."""
    own = items[items["verbalizer"] == verbalizer].sort_values("item_id")
    scores = np.stack(own[f"score_{scorer}"].to_numpy())[:, [concepts.index(name) for name in kept]]
    prompts = np.unique(own["prompt"], return_inverse=True)[1]
    numbers = np.array([kept.index(name) for name in own["concept"]])
    nested = bool((own["arm"] == "natural").all())
    clusters = Clusters(numbers, prompts, nested=True, pool="natural") if nested else Clusters(numbers, prompts)
    n_prompts = int(prompts.max()) + 1
    return macro_auroc(scores[None], clusters, resample(len(kept), n_prompts, 2_000), n_prompts=n_prompts)[0]


def _show(found: Interval, sign: str = "") -> str:
    return f"{found.estimate:{sign}.2f} [{found.low:{sign}.2f}, {found.high:{sign}.2f}]"


if __name__ == "__main__":
    typer.run(main)
