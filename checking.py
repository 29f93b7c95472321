"""`check()`: is a candidate run worse than a baseline run? The command line and the pytest plugin call it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .benchmark.concepts import ConceptPack
    from .leaderboard.regression import Comparison


def check(
    baseline: Path | str,
    candidate: Path | str,
    *,
    margin: float = 0.05,
    metrics: Sequence[str] = (),
    verbalizer: str | None = None,
    baseline_verbalizer: str | None = None,
    rescore: bool = False,
    pack: ConceptPack | None = None,
) -> Comparison:
    """Compare a verbalizer's run with a baseline, metric by metric, by a paired test on the same items.

    baseline, candidate: a run's folder, or its `result.json` with `items.parquet` beside it. margin: the drop that is
    still fine, in the metrics' units. metrics: see `choose_metrics`; by default the headline. verbalizer: whose texts,
    where a run has several under test; baseline_verbalizer: its name in the baseline, where that is another. rescore:
    score the texts of both again, in the place of the scores that are stored; pack: for that, a pack that the record
    cannot name (a private one).

    Raises:
        BadInput: a file cannot be read, the runs are not of one benchmark or hold other items, or there is no such
            verbalizer or metric.
    """
    from .benchmark.pairing import pair_metrics
    from .benchmark.report.headline import usual_strength
    from .benchmark.rescoring import score_texts_again
    from .benchmark.stored_run import read_record, read_run
    from .leaderboard.regression import (
        Comparison,
        check_comparable,
        check_metrics,
        choose_metrics,
        choose_verbalizers,
        describe_benchmark,
    )

    records = read_record(baseline), read_record(candidate)
    check_comparable(*records)
    names = choose_verbalizers(*records, verbalizer, baseline_verbalizer)
    choices = choose_metrics(metrics, usual_strength(records[0]))
    runs = read_run(baseline, names[:1]), read_run(candidate, names[1:])
    if rescore:
        runs = score_texts_again(runs[0], pack), score_texts_again(runs[1], pack)
    scorer = records[0].headline_scorer
    wanted = dict.fromkeys([scorer, *(choice.conditions.get("scorer", scorer) for choice in choices)])
    scorers = [record.name for record in records[0].scorers if record.name in wanted]
    tasks = list(dict.fromkeys(choice.task for choice in choices))
    pairs = pair_metrics(*runs, names, tasks, scorers)
    return Comparison(
        baseline=f"{names[0]} ({baseline})",
        candidate=f"{names[1]} ({candidate})",
        benchmark=describe_benchmark(records[0]),
        checks=tuple(check_metrics(pairs, choices, margin, scorer)),
        warnings=tuple(records[1].verbalizers[names[1]].warnings),
    )
