"""Sentences that say what the numbers say, and no more."""

from __future__ import annotations

from nlabench.benchmark.findings import find
from nlabench.benchmark.records import GateRow, MetricRow, Result, ScorerRecord, VerbalizerRecord

ROLES = {"mine": "submitted", "theirs": "baseline", "probe": "ceiling", "constant": "floor", "average:mine": "floor"}
Bounds = tuple[float, float | None, float | None]


def sentences(leads: dict[str, Bounds]) -> str:
    def row(metric: str, arm: str, bounds: Bounds, verbalizer: str = "mine", versus: str | None = None) -> MetricRow:
        value, low, high = bounds
        paired = versus is None
        return MetricRow(
            task="concept_identification", metric=metric, verbalizer=verbalizer, scorer="embedding", arm=arm,
            injection="readout" if paired else "none", level="matched" if paired else "grid", versus=versus,
            value=value, low=low, high=high,
        )  # fmt: skip

    pairs = [("auroc_in_pairs", "natural", 0.8), ("auroc_in_pairs", "steered", 0.7), ("auroc_gap", "both", -0.1)]
    metrics = [
        row(metric, arm, (value, value - 0.2, value + 0.2), name)
        for name in ("mine", "theirs")
        for metric, arm, value in pairs
    ]
    metrics += [row("auroc_lead", "natural", bounds, versus=other) for other, bounds in leads.items()]
    metrics += [row("auroc_lead", "natural", (-0.3, -0.4, -0.2), "theirs", "mine")]
    result = Result.model_construct(
        verbalizers={name: VerbalizerRecord.model_construct(card={"role": role}) for name, role in ROLES.items()},
        scorers=[ScorerRecord.model_construct(name="embedding", ranks=True, forms_marked=True)],
        gate=[GateRow.model_construct(r=0.3, steers=False)],
        concepts=[],
        metrics=metrics,
    )
    return " ".join(find(result))


def test_a_submitted_verbalizer_is_placed_among_the_others() -> None:
    said = sentences(
        {
            "constant": (0.3, None, None),  # the same difference in every unit
            "average:mine": (0.3, 0.1, 0.5),
            "theirs": (0.2, 0.1, 0.3),
            "probe": (-0.05, -0.2, 0.1),
        }
    )
    placed = (
        "mine is above its floors, theirs (+0.20 [+0.10, +0.30]); not to be told from probe (-0.05 [-0.20, +0.10])."
    )
    assert placed in said
    assert "theirs is" not in said  # a baseline is not placed


def test_a_floor_that_is_not_beaten_is_named() -> None:
    said = sentences({"constant": (0.1, 0.05, 0.2), "average:mine": (0.02, -0.1, 0.1), "probe": (-0.2, -0.3, -0.1)})
    assert "its floors" not in said
    assert (
        "mine is above constant (+0.10 [+0.05, +0.20]); below probe (-0.20 [-0.30, -0.10]); not to be told from" in said
    )
    assert "average:mine (+0.02 [-0.10, +0.10])." in said
