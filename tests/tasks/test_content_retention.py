"""Content retention on planted texts: who copies the prompt keeps its content, who names the concept loses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from nlabench.benchmark.activations import ItemSpec
from nlabench.benchmark.concepts import load_pack
from nlabench.benchmark.extraction import Activations
from nlabench.benchmark.panel import Panel
from nlabench.benchmark.reading import FUNCTION_WORDS
from nlabench.benchmark.records import MetricRow
from nlabench.benchmark.roster import Roster
from nlabench.benchmark.statistics import resample
from nlabench.benchmark.study import CONTROL_DRAWS, Study, sketch_study
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.suites import QUICK
from nlabench.benchmark.task import MeasuringTask
from nlabench.benchmark.transcript import Transcript
from nlabench.benchmark.verbalizers.base import Verbalization
from nlabench.benchmark.verbalizing import Verbalized
from nlabench.tasks.content_retention import TASK, candidate_prompts

SUITE = QUICK.model_copy(update={"strengths": (0.1, 0.5, 1.0), "upstream_strengths": (0.3,)})
GRID, CONCEPTS, PROMPTS = SUITE.strengths, SUITE.n_concepts, SUITE.readout_prompts
#: What is named where a control direction moves an activation.
DIRECTIONS = ["rain", "a quarrel", "chess", "the number seven", "glass", "a choir", "rust", "an island"]
SCORERS = ("embedding", "independent-embedding")

#: A verbalizer is a function (item's label, text of its prompt up to the readout) -> text.
Writes = Callable[[pd.Series, str], str]


@pytest.fixture(scope="module")
def study(subject: Subject) -> Study:
    return sketch_study(subject, load_pack(), SUITE)


def label_items(study: Study, specs: list[ItemSpec]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "item_id": spec.item_id(study.suite.seed), "arm": spec.arm, "injection": spec.injection,
            "level": spec.level, "concept": spec.concept, "prompt": spec.readout.text_id, "kind": spec.readout.kind,
            "position": spec.readout.index, "r": spec.r, "draw": spec.draw,
        }
        for spec in specs
    )  # fmt: skip


def score(study: Study, more: tuple[ItemSpec, ...] = (), **verbalizers: Writes) -> list[MetricRow]:
    """Measure the texts of planted verbalizers with the real embedders, and score them."""
    items = label_items(study, [*TASK.items(study), *more])
    numbers = {prompt.text.id: number for number, prompt in enumerate(study.readout_prompts)}
    items["prompt_number"] = items["prompt"].map(numbers)
    items["concept_number"] = items["concept"].map({name: i for i, name in enumerate(study.pack.names)})
    candidates = candidate_prompts(study)

    def verbalize(write: Writes) -> Verbalized:
        texts = [Verbalization(write(item, candidates[item["prompt_number"]])) for _, item in items.iterrows()]
        return Verbalized(texts, 1.0, len(texts), None, None)

    said = {name: verbalize(write) for name, write in verbalizers.items()}
    activations, engine = Activations(torch.zeros(len(items), 1), items), None
    transcript = Transcript(study, activations, Roster({}, {}), said, {}, engine)  # type: ignore[arg-type]
    panel = Panel(
        items, np.zeros((0, len(items), CONCEPTS)), [], {}, {}, study.pack.names, study.pack.families, {},
        resample(CONCEPTS, PROMPTS, 10), TASK.measure(transcript),
    )  # fmt: skip
    return TASK.score(panel)


def one(rows: list[MetricRow], metric: str, verbalizer: str, scorer: str = "embedding", **fields: Any) -> MetricRow:
    wanted = {"metric": metric, "verbalizer": verbalizer, "scorer": scorer, "injection": "readout", **fields}
    found = [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]
    assert len(found) == 1, (wanted, len(found))
    return found[0]


NEUTRAL = {"arm": "neutral", "injection": "none", "r": 0.0}


def copies(item: pd.Series, prompt: str) -> str:
    return prompt


def says_nothing(item: pd.Series, prompt: str) -> str:
    return "A text."


def names_the_concept(item: pd.Series, prompt: str) -> str:
    if item["arm"] == "steered":
        return str(item["concept"]).replace("_", " ")
    return DIRECTIONS[item["draw"]]


def forgets_from_half(item: pd.Series, prompt: str) -> str:
    return prompt if item["r"] < 0.5 else "A text."


def test_content_retention_is_a_task_that_measures() -> None:
    assert isinstance(TASK, MeasuringTask)


def test_a_candidate_is_the_prompt_up_to_the_word_that_is_read(study: Study) -> None:
    candidates = candidate_prompts(study)
    assert len(set(candidates)) == PROMPTS
    for candidate, prompt in zip(candidates, study.readout_prompts, strict=True):
        assert prompt.text.text.startswith(candidate)
        assert candidate != prompt.text.text
        assert candidate.split()[-1] in FUNCTION_WORDS


def test_every_prompt_is_moved_by_every_control_at_every_strength_of_the_steered_arm(study: Study) -> None:
    items = TASK.items(study)
    neutral = {item.readout for item in items if item.arm == "neutral"}
    assert len(neutral) == PROMPTS
    arms = {"readout": ("steered", "permuted", "random", "graft"), "upstream": ("steered", "permuted", "random")}
    for injection, strengths in (("readout", GRID), ("upstream", SUITE.upstream_strengths)):
        moved = [item for item in items if item.injection == injection]
        assert {item.arm for item in moved} == set(arms[injection])
        for arm in arms[injection]:
            for r in strengths:
                assert {item.readout for item in moved if (item.arm, item.r) == (arm, r)} == neutral


@pytest.mark.parametrize("scorer", SCORERS)
def test_who_copies_the_prompt_keeps_all_of_it_and_who_says_nothing_none(study: Study, scorer: str) -> None:
    rows = score(study, copies=copies, constant=says_nothing)
    cells = {(row.arm, row.injection, row.r) for row in rows if row.metric == "auroc"}
    assert len(cells) == 1 + 4 * len(GRID) + 3 * len(SUITE.upstream_strengths)
    for arm, injection, r in cells:
        at: dict[str, Any] = {"arm": arm, "injection": injection, "r": r}
        assert one(rows, "auroc", "copies", scorer, **at).value == 1.0
        assert one(rows, "top1", "copies", scorer, **at).value == 1.0
        assert one(rows, "auroc", "constant", scorer, **at).value == 0.5
    assert one(rows, "top1", "constant", scorer, **NEUTRAL).value == pytest.approx(1 / PROMPTS)
    assert one(rows, "auroc_lost", "copies", scorer, arm="steered", r=1.0).value == 0


def test_naming_every_prompt_keeps_none(study: Study) -> None:
    every = " ".join(candidate_prompts(study))
    rows = score(study, stuffed=lambda item, prompt: every)
    assert {row.value for row in rows if row.metric == "auroc"} == {0.5}


def test_naming_the_concept_alone_is_at_chance(study: Study) -> None:
    rows = score(study, names=names_the_concept)
    for scorer in SCORERS:
        for arm in ("steered", "permuted", "random"):
            row = one(rows, "auroc", "names", scorer, arm=arm, r=1.0)
            assert row.low < 0.5 < row.high, row


def test_content_that_goes_at_half_the_norm_has_that_curve(study: Study) -> None:
    rows = score(study, forgets=forgets_from_half)
    for arm in ("steered", "permuted", "random", "graft"):
        curve = [one(rows, "auroc", "forgets", arm=arm, r=r).value for r in GRID]
        assert curve == [1.0 if r < 0.5 else 0.5 for r in GRID]
        lost = [one(rows, "auroc_lost", "forgets", arm=arm, r=r).value for r in GRID]
        assert lost == [0.0 if r < 0.5 else 0.5 for r in GRID]


def test_some_of_a_prompts_words_are_content_and_another_prompts_words_are_not(study: Study) -> None:
    candidates = candidate_prompts(study)
    after = dict(zip(candidates, [*candidates[1:], candidates[0]], strict=True))
    rows = score(study, part=lambda _, prompt: " ".join(prompt.split()[2:6]), other=lambda _, prompt: after[prompt])
    for scorer in SCORERS:
        part = one(rows, "auroc", "part", scorer, **NEUTRAL)
        assert part.value > 0.9
        assert part.low > 0.5
        assert one(rows, "auroc", "other", scorer, **NEUTRAL).value < 0.6
        assert one(rows, "top1", "other", scorer, **NEUTRAL).value == 0


def test_two_prompts_whose_texts_are_swapped_are_both_lost(study: Study) -> None:
    first, second, *_ = candidate_prompts(study)
    swapped = {first: second, second: first}
    rows = score(study, swaps=lambda _, prompt: swapped.get(prompt, prompt))
    assert one(rows, "top1", "swaps", **NEUTRAL).value == pytest.approx((PROMPTS - 2) / PROMPTS)
    # Each of the two meets a negative that has its own text: at best it wins over all but that one.
    most = (PROMPTS - 2 + 2 * (PROMPTS - 2) / (PROMPTS - 1)) / PROMPTS
    assert one(rows, "auroc", "swaps", **NEUTRAL).value <= most < 1


def test_what_only_a_concepts_direction_takes_away_is_a_gap_from_the_permuted_arm(study: Study) -> None:
    def yields_to_concepts(item: pd.Series, prompt: str) -> str:
        return names_the_concept(item, prompt) if item["arm"] == "steered" else prompt

    rows = score(study, yields=yields_to_concepts, copies=copies)
    gap = one(rows, "auroc_gap", "yields", arm="steered-permuted", r=1.0)
    assert gap.high < 0
    assert one(rows, "auroc_gap", "copies", arm="steered-permuted", r=1.0).value == 0
    assert one(rows, "auroc_lost", "yields", arm="steered", r=1.0).low > 0
    assert one(rows, "auroc_lost", "yields", arm="permuted", r=1.0).value == 0


def test_what_was_never_said_is_not_lost(study: Study) -> None:
    described = set(candidate_prompts(study)[::2])
    rows = score(study, half=lambda _, prompt: prompt if prompt in described else "A text.")
    assert 0.5 < one(rows, "auroc", "half", **NEUTRAL).value < 1
    for arm in ("random", "graft"):  # one item per prompt, as in the neutral arm: paired, nothing is left
        assert one(rows, "auroc_lost", "half", arm=arm, r=1.0).value == 0


def test_prompts_that_share_a_direction_are_fewer_units(study: Study) -> None:
    """Random directions are shared by prompts, and grafts are not: the same texts are weaker evidence of the first."""
    rows = score(study, some=lambda item, prompt: "A text." if item["r"] and item["prompt_number"] % 4 == 0 else prompt)
    shared, own = (one(rows, "auroc_lost", "some", arm=arm, r=1.0) for arm in ("random", "graft"))
    assert shared.value == own.value > 0
    assert shared.high - shared.low > 1.2 * (own.high - own.low)


def test_rows_count_prompts_concepts_and_items(study: Study) -> None:
    rows = score(study, copies=copies)
    steered = one(rows, "auroc", "copies", arm="steered", r=0.1)
    assert (steered.n_prompts, steered.n_concepts) == (PROMPTS, CONCEPTS)
    assert steered.n_items == CONCEPTS * SUITE.prompts_per_concept
    for arm, n_items in (("permuted", 2 * PROMPTS), ("random", PROMPTS), ("graft", PROMPTS)):
        row = one(rows, "auroc", "copies", arm=arm, r=0.1)
        assert (row.n_prompts, row.n_concepts, row.n_items) == (PROMPTS, 0, n_items)
    gap = one(rows, "auroc_gap", "copies", arm="steered-permuted", r=0.1)
    assert (gap.n_prompts, gap.n_concepts) == (PROMPTS, CONCEPTS)
    assert PROMPTS > CONTROL_DRAWS  # so that prompts share directions


def test_another_tasks_items_of_the_arm_are_not_measured(study: Study) -> None:
    item = next(item for item in TASK.items(study) if item.arm == "steered" and item.injection == "readout")
    prompt = next(p for p in study.readout_prompts if p.text.id == item.readout.text_id)
    elsewhere = replace(item, readout=prompt.final), replace(item, readout=prompt.function[0])
    assert prompt.function[0] != item.readout
    here = score(study, copies=copies)
    assert score(study, more=elsewhere, copies=copies) == here
