"""Sentences that say what the numbers say, and no more."""

from __future__ import annotations

from typing import Any

from nlabench.benchmark.findings import find
from nlabench.benchmark.records import GateRow, MetricRow, Result, SaidRow, ScorerRecord, VerbalizerRecord

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


def sentences_of(
    metrics: list[MetricRow],
    gate: dict[str, bool] | None = None,
    said: dict[str, bool] | None = None,
    n_prompts: int = 2,
) -> str:
    """What is found of a result with these rows. gate, said: by concept, at r = 1; at r = 0.3 nothing steers."""
    roles = {**ROLES, "last-four": "reader", "prompt-reader": "reader"}
    at = [(0.3, name, False) for name in gate or {}] + [(1.0, name, steers) for name, steers in (gate or {}).items()]
    result = Result.model_construct(
        verbalizers={name: VerbalizerRecord.model_construct(card={"role": role}) for name, role in roles.items()},
        scorers=[ScorerRecord.model_construct(name="embedding", ranks=True, forms_marked=True)],
        gate=[
            GateRow.model_construct(concept=name, r=r, steers=steers) for r, name, steers in at or [(1.0, "joy", False)]
        ],
        said=[
            SaidRow.model_construct(verbalizer=who, concept=name, r=r, said=says, n_prompts=n_prompts)
            for who in ("mine", "theirs")
            for r in (0.3, 1.0)
            for name, says in (said or {}).items()
        ],
        concepts=[],
        metrics=metrics,
    )
    return " ".join(find(result))


def figure(task: str, metric: str, bounds: Bounds, **fields: Any) -> MetricRow:
    value, low, high = bounds
    start: dict[str, Any] = {"verbalizer": "mine", "scorer": "none", "arm": "natural"}
    return MetricRow(task=task, metric=metric, value=value, low=low, high=high, **{**start, **fields})


def test_directions_that_steer_are_told_from_those_that_are_said() -> None:
    gate = {"joy": True, "ocean": True, "legalese": False, "sql": False, "python": True}
    said = {"joy": True, "ocean": False, "legalese": True, "sql": False}  # python was not judged
    found = sentences_of([], gate, said)
    assert "Upstream at r = 1, 2 directions steer; mine says 1 of them, and says 1 that does not steer (each" in found
    assert "theirs says" not in found  # a baseline


def test_a_test_over_many_prompts_is_not_called_weak() -> None:
    gate, said = {"joy": True, "ocean": False}, {"joy": True, "ocean": False}
    assert "1 direction steers; mine says 1 of them, and says 0 that do not steer." in sentences_of([], gate, said, 6)


def test_nothing_is_said_of_directions_where_none_steers() -> None:
    assert "mine says" not in sentences_of([], {"joy": False}, {"joy": True})


MATCHED: dict[str, Any] = {"arm": "steered", "injection": "readout", "level": "matched"}


def explained(own: Bounds, average: Bounds, lead: Bounds, stripped: Bounds, lost: Bounds) -> list[MetricRow]:
    """Natural and steered figures alike; the constant text explains less than the average direction's."""
    rows = []
    for cell in ({"arm": "natural"}, MATCHED):
        name = "fve_over_mean"
        rows += [
            figure("reconstruction", name, own, **cell),
            figure("reconstruction", f"{name}.constant_text", (-0.9, -1.0, -0.8), **cell),
            figure("reconstruction", f"{name}.average_direction", average, **cell),
            figure("reconstruction", f"{name}_lead", lead, versus="average_direction", **cell),
            figure("reconstruction", f"{name}.quotes_stripped", stripped, **cell),
            figure("reconstruction", f"{name}_lead", lost, versus="quotes_stripped", **cell),
            figure("reconstruction", "fve", (0.99, 0.98, 1.0), **cell),
            figure("reconstruction", f"{name}.second_reconstructor", (0.7, 0.6, 0.8), **cell),
        ]
    return rows


def test_what_texts_explain_stands_beside_the_best_control_and_the_texts_without_quotes() -> None:
    rows = explained((0.4, 0.3, 0.5), (0.1, 0.0, 0.2), (0.3, 0.2, 0.4), (-0.2, -0.3, -0.1), (0.6, 0.5, 0.7))
    found = sentences_of(rows)
    assert (
        "the texts of mine explain 0.40 [0.30, 0.50] on natural activations and 0.40 [0.30, 0.50] on steered ones of "
        "matched evidence; the best control (average direction) 0.10 [0.00, 0.20] and 0.10 [0.00, 0.20]." in found
    )
    assert "Without the quotes in them that is -0.20 [-0.30, -0.10] and -0.20 [-0.30, -0.10]: it does not" in found


def test_what_survives_without_quotes_is_told_in_full_or_in_part() -> None:
    kept = (0.3, 0.2, 0.4)
    own, average, lead = (0.4, 0.3, 0.5), (0.1, 0.0, 0.2), (0.3, 0.2, 0.4)
    assert ": part of it survives." in sentences_of(explained(own, average, lead, kept, (0.1, 0.05, 0.2)))
    assert ": it survives." in sentences_of(explained(own, average, lead, kept, (0.1, -0.05, 0.2)))


def test_texts_that_explain_no_more_than_a_control_are_said_not_to() -> None:
    rows = explained((0.05, -0.1, 0.2), (0.1, 0.0, 0.2), (-0.05, -0.2, 0.1), (0.0, -0.1, 0.1), (0.05, -0.1, 0.2))
    found = sentences_of(rows)
    assert "which they do not beat on natural activations nor on steered ones of matched evidence." in found
    assert "Without the quotes" not in found  # there is nothing that quotes could have carried


def information(natural: Bounds, steered: dict[float, Bounds]) -> list[MetricRow]:
    """Of readers, prompt-reader is the stronger on natural items; on steered ones both are at one half."""
    at: dict[str, Any] = {"scorer": "embedding"}
    cells = [({"arm": "natural"}, natural)]
    cells += [({"arm": "steered", "injection": "readout", "r": r}, lead) for r, lead in steered.items()]
    rows = []
    for cell, lead in cells:
        for reader, auroc in (("last-four", 0.6), ("prompt-reader", 0.9)):
            auroc = 0.5 if cell["arm"] == "steered" else auroc
            rows.append(
                figure(
                    "privileged_information", "auroc_same_tokens", (auroc, None, None), **at, **cell, verbalizer=reader
                )
            )
            shown = lead if reader == "prompt-reader" or cell["arm"] == "steered" else (0.9, 0.8, 1.0)
            rows.append(figure("privileged_information", "information_over_text", shown, **at, **cell, versus=reader))
    return rows


def test_information_is_told_over_the_strongest_reader_and_from_the_r_at_which_it_stays() -> None:
    steered: dict[float, Bounds] = {
        0.1: (0.2, 0.1, 0.3),  # above 0, but not at the next
        0.3: (0.1, -0.1, 0.3),
        1.0: (0.4, 0.3, 0.5),
        2.0: (0.5, None, None),  # the same in every unit
    }
    found = sentences_of(information((-0.2, -0.3, -0.1), steered))
    assert (
        "Where the words are the same, mine is below the strongest reader of text, prompt-reader, on natural "
        "activations (-0.20 [-0.30, -0.10]); on steered ones it says more than any reader from r = 1 on "
        "(+0.40 [+0.30, +0.50] there)." in found
    )


def test_no_information_at_the_largest_r_is_said_as_that() -> None:
    found = sentences_of(information((0.0, -0.1, 0.1), {0.3: (0.3, 0.2, 0.4), 1.0: (0.0, -0.2, 0.2)}))
    assert "not to be told from the strongest reader of text, prompt-reader," in found
    assert "it does not say more than every reader at r = 1 (+0.00 [-0.20, +0.20])." in found
