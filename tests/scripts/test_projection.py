"""E1's projected prompts: searched on after what was recovered, and answered beside the steered and the original."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from nlabench.benchmark.decoding import decode
from nlabench.benchmark.inversion import invert
from nlabench.benchmark.subject import Subject
from nlabench.tasks.invertibility import invert_sequences
from non_surjective import inversion, inversion_rows, inverting, projection, sip_it
from non_surjective.inverting import count_given, find_inverted, in_float32, invert_set, scanner_of
from non_surjective.prompts import SETS
from non_surjective.refusals import is_answered
from non_surjective.setup import Setup

PROMPTS = [[1, 20, 5, 17, 9, 30, 11, 4], [1, 20, 8, 3, 21, 6, 12, 19]]


def make_setup(subject: Subject, strength: float) -> Setup:
    """Two prompts a set, after two tokens of a template, and directions of length one."""
    drawn = torch.randn(3, subject.d_model, generator=torch.Generator().manual_seed(0))
    vectors = drawn / drawn.norm(dim=-1, keepdim=True)
    return Setup(
        subject=subject, layer=2, layers=dict.fromkeys(SETS, 2), directions=dict.fromkeys(SETS, vectors[0]),
        controls={name: {"permuted": vectors[1], "random": vectors[2]} for name in SETS},
        made_of=dict.fromkeys(SETS, (1, 1)), strengths=dict.fromkeys(SETS, strength),
        prompts=dict.fromkeys(SETS, PROMPTS), spans={name: [(2, 8)] * 2 for name in SETS},
        requests={name: ["", ""] for name in SETS}, quick=True, seed=0, say=lambda _: None,
    )  # fmt: skip


@pytest.fixture
def subject(tiny: Callable[[str], Subject], monkeypatch: pytest.MonkeyPatch) -> Subject:
    """Of what earlier tests inverted nothing is left, and as many tokens are searched as the prompts have."""
    for remembered in ("_DONE", "_SUBJECTS", "_SCANNERS"):
        monkeypatch.setattr(inverting, remembered, {})
    monkeypatch.setattr(inverting, "QUICK", inverting.Size(2, 6, 1, 2))
    return tiny("llama")


def test_a_projection_is_what_the_search_after_the_recovered_prefix_ends_in(subject: Subject) -> None:
    setup = make_setup(subject, 40.0)
    scanner, found = scanner_of(in_float32(subject), 2), invert_set(setup, "refusal").inverted
    steered = [one for one in found if one.sequence.arm == "steered" and one.sequence.strength == 40.0]
    assert len(steered) == 2
    projected = []
    for one in steered:
        ids = PROMPTS[one.sequence.prompt]
        free = invert(scanner, {"x": one.sequence.states}, given=ids[:2])["x"]
        projected.append(projection.project(scanner, ids, one, given=2))
        assert projected[-1] == [*ids[:2], *free.tokens]
    assert projected != PROMPTS
    # Under the true prefix the tokens after the first wrong one are others' business: here they part.
    assert projected != [[*PROMPTS[one.sequence.prompt][:2], *one.inversion.tokens] for one in steered]


def test_tokens_that_were_not_searched_stay(subject: Subject) -> None:
    setup = make_setup(subject, 40.0)
    inverting.QUICK = inverting.Size(2, 3, 1, 2)
    one = find_inverted(setup, "refusal", 0, 40.0)
    assert one is not None
    found = projection.project(scanner_of(in_float32(subject), 2), PROMPTS[0], one, count_given(setup, "refusal"))
    assert (found[:2], found[5:]) == (PROMPTS[0][:2], PROMPTS[0][5:])


def test_a_prompt_that_differs_is_answered_beside_the_steered_and_the_original(subject: Subject) -> None:
    setup = make_setup(subject, 40.0)
    (own, largest) = projection.answer_projected(setup, "refusal")
    assert (own["strength"], largest["strength"]) == (40.0, 5.0)
    plain = [answer.text for answer in decode(subject, PROMPTS, max_new_tokens=24)]
    assert own["cases"]
    for case in own["cases"]:
        said = case["answers"]
        assert said["original"] == plain[case["prompt"]]
        assert said["steered"] != said["original"]
        assert case["answered"] == {who: is_answered(text) for who, text in said.items()}
        assert all(-1 <= value <= 1 + 1e-6 for value in case["similarity"].values())
    row = projection.projected_row("refusal", own)
    assert row.ours.startswith(f"{len(own['cases'])} of 2 differ")
    assert row.verdict == "no figure"


def test_a_prompt_that_is_recovered_needs_no_answer(subject: Subject) -> None:
    setup = make_setup(subject, 0.01)
    own = projection.answer_projected(setup, "refusal")[0]
    assert (own["prompts"], own["cases"]) == (2, [])
    assert "none of 2 differs" in projection.projected_row("refusal", own).ours


def test_the_table_has_a_line_of_it_for_each_set_and_strength(subject: Subject) -> None:
    outcome = inversion.run(replace(make_setup(subject, 40.0)))
    lines = [row for row in outcome.rows if "projected" in row.what]
    assert [row.what.split(":")[0] for row in lines] == ["persona", "persona", "refusal", "refusal"]
    assert outcome.data["refusal"]["projected"][0]["cases"]
    assert outcome.rows[-1].ours.startswith("natural 1/1")  # the subject with int8 weights


def test_a_quick_run_leaves_int8_weights_out_and_says_so(subject: Subject) -> None:
    inverting.QUICK = inverting.Size(2, 1, 0, 0)
    setup = make_setup(subject, 40.0)
    outcome = inversion.run(setup)
    assert (outcome.rows[-1].what, outcome.rows[-1].verdict) == ("refusal: subject with int8 weights", "not rerun")
    assert "no int8 weights" in outcome.notes[-1]
    assert inverting.count_scans(setup) == 1


def test_int8_weights_give_their_own_prompt_back_and_are_another_subject(subject: Subject) -> None:
    setup = make_setup(subject, 40.0)
    found = inverting.invert_quantised(setup)
    by_arm = {one.sequence.arm: one for one in found.inverted}
    assert len(by_arm) == len(found.inverted)
    natural, steered = by_arm["natural"], by_arm["steered"]
    assert list(natural.inversion.tokens) == PROMPTS[0][2:4]
    own = find_inverted(setup, "refusal", 0, 40.0)
    assert own is not None
    assert not torch.equal(steered.sequence.states, own.sequence.states[:2])
    row = inversion_rows.quantised_row(found)
    assert "natural 1/1" in row.ours
    assert row.verdict != "not rerun"


def test_one_scan_of_a_position_serves_both_sets(subject: Subject) -> None:
    said: list[str] = []
    setup = replace(make_setup(subject, 40.0), say=said.append)
    found = inverting.invert_sets(setup)
    # After the template one scan serves all prompts; from there on either prompt has its own, in both sets the same.
    assert len(said) == found["persona"].scans == found["refusal"].scans == 1 + 2 * 5
    assert inverting.count_scans(setup) == 11 + 2  # and two of the int8 subject
    assert found["persona"].prompts == 4
    for name in SETS:
        sequences = inverting.make_set(setup, name, subject)
        alone = invert_sequences(scanner_of(subject, 2), sequences, given=PROMPTS[0][:2])
        assert [one.inversion for one in found[name].inverted] == [one.inversion for one in alone]


def test_sets_that_are_read_after_other_blocks_share_no_scan(subject: Subject) -> None:
    said: list[str] = []
    setup = replace(make_setup(subject, 40.0), say=said.append, layers={"persona": 1, "refusal": 2})
    found = inverting.invert_sets(setup)
    assert (len(said), found["persona"].scans, found["persona"].prompts) == (22, 11, 2)
    assert inverting.count_scans(setup) == 22 + 2


def test_sip_it_reads_its_exhaustive_scans_off_the_inversion(subject: Subject) -> None:
    scanned = sip_it.read_scans(make_setup(subject, 40.0))
    assert [hit for _, hit in scanned] == [True] * 12  # natural states, two prompts of six tokens
