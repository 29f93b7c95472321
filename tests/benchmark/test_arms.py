"""Which items a run makes, from the sketch alone: before anything is read."""

from __future__ import annotations

from collections import Counter

import pytest
from nlabench.benchmark import arms
from nlabench.benchmark.concepts import load_pack
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.planning import plan_items
from nlabench.benchmark.reading import FOLLOWING_TOKENS
from nlabench.benchmark.study import Study, sketch_study
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.suites import QUICK, Suite, load_suite
from nlabench.benchmark.task import load_tasks


@pytest.fixture(scope="module")
def study(subject: Subject) -> Study:
    return sketch_study(subject, load_pack(), QUICK)


def test_every_pair_is_on_one_word_and_a_concepts_pairs_are_in_different_prompts(study: Study) -> None:
    pairs = arms.token_matched_pairs(study)
    assert len(pairs) == QUICK.n_concepts * QUICK.natural_per_concept
    assert all(natural.word == partner.word for _, natural, partner in pairs)
    prompts = Counter((concept, partner.text_id) for concept, _, partner in pairs)
    assert max(prompts.values()) == 1


def test_a_natural_text_is_read_after_its_concept_was_said(study: Study) -> None:
    for _, natural, _ in arms.token_matched_pairs(study):
        assert natural.index >= len(study.texts[natural.text_id].ids) / 2


def test_readout_prompts_are_used_evenly(study: Study) -> None:
    used = Counter(partner.text_id for _, _, partner in arms.token_matched_pairs(study))
    assert set(used) == {p.text.id for p in study.readout_prompts}
    crossed = Counter(readout.text_id for _, readout in arms.crossing(study))
    assert max(crossed.values()) - min(crossed.values()) <= 1


def test_every_steered_item_has_a_permuted_one_at_its_readout_and_strength(study: Study) -> None:
    items = plan_items(study, load_tasks(QUICK.tasks))
    permuted = {(i.readout, i.injection, i.r, i.level) for i in items if i.arm == "permuted"}
    steered = [i for i in items if i.arm == "steered" and i.readout.kind == "function"]
    assert steered
    assert all((i.readout, i.injection, i.r, i.level) in permuted for i in steered)


def test_items_are_shared_by_tasks_and_concept_free_ones_by_concepts(study: Study) -> None:
    items = plan_items(study, load_tasks(QUICK.tasks))
    assert len(items) == len(set(items))
    assert all(i.concept is None for i in items if i.arm in ("permuted", "random", "graft", "neutral", "gaussian"))


def test_no_final_and_no_upstream_items_where_a_suite_wants_none(subject: Subject) -> None:
    settings = {**QUICK.model_dump(), "final_per_concept": 0, "upstream_strengths": ()}
    bare = sketch_study(subject, load_pack(), Suite.model_validate(settings))
    items = plan_items(bare, load_tasks(QUICK.tasks))
    assert not [i for i in items if i.injection == "upstream"]
    assert not [i for i in items if i.readout.kind == "final" and i.arm != "neutral"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("strengths = [2.0, 0.1]", "strengths rise and are above 0"),
        ("strengths = [0.0, 0.1]", "strengths rise and are above 0"),
        ("gate_requests = 9", "less than or equal to 8"),
    ],
)
def test_a_suite_that_would_mislead_is_refused(tmp_path, line: str, said: str) -> None:
    (tmp_path / "s.toml").write_text(f'base = "quick"\n{line}\n')
    with pytest.raises(BadInput, match=said):
        load_suite(str(tmp_path / "s.toml"))


def test_items_with_text_to_follow_are_pairs_on_one_word_and_have_their_controls(subject: Subject) -> None:
    study = sketch_study(
        subject, load_pack(), Suite(**{**QUICK.model_dump(), "mid_per_concept": 2, "mid_strengths": (0.3, 1.0)})
    )
    items = arms.mid_items(study)
    assert all(item.readout.kind == "mid" for item in items)
    for item in items:
        assert len(study.texts[item.readout.text_id].ids) - 1 - item.readout.index >= FOLLOWING_TOKENS
    by_arm = Counter(item.arm for item in items)
    assert by_arm["natural"] == 2 * QUICK.n_concepts
    matched = [item for item in items if item.level == "matched"]
    assert len(matched) == by_arm["natural"]
    assert all(item.pair.word == item.readout.word for item in matched if item.pair)
    moved = {(item.readout, item.r) for item in items if item.arm == "steered" and item.level == "grid"}
    assert moved == {(item.readout, item.r) for item in items if item.arm == "permuted"}
    assert {readout for readout, _ in moved} == {item.readout for item in items if item.arm == "neutral"}
    assert arms.mid_items(sketch_study(subject, load_pack(), QUICK)) == []
