"""The arms that are inverted, what is counted of them, and the quantised subject."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from nlabench.benchmark.inversion import Inversion, Position
from nlabench.benchmark.inversion_scan import Scanner
from nlabench.benchmark.steering import random_directions
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.task import known_tasks
from nlabench.tasks.invertibility import (
    Inverted,
    StateSequence,
    invert_sequences,
    make_sequences,
    move_toward,
    moved_upstream,
    natural_states,
    quantise,
    ratio_auroc,
    summarise,
)

SITE = 2
PROMPTS = [[5, 17, 9, 30, 11, 4], [5, 17, 8, 2, 21], [5, 17, 33, 12, 19, 7, 3]]


@pytest.fixture
def subject(tiny: Callable[[str], Subject]) -> Subject:
    return tiny("llama")


def shifts_of(subject: Subject, length: float) -> dict[str, torch.Tensor]:
    steered, random = random_directions(subject.d_model, 2, seed=3) * length
    return {"steered": steered, "random": random}


def invented(ratios: list[list[float]], arm: str) -> list[Inverted]:
    """Inversions with these ratios of second to nearest distance, per prompt."""
    found = []
    for prompt, own in enumerate(ratios):
        positions = tuple(Position(i + 1, (7, 8), (1.0, ratio), 100.0) for i, ratio in enumerate(own))
        states = torch.zeros(len(own), 2)
        sequence = StateSequence(arm, prompt, 1.0, (7,) * len(own), states, states)
        found.append(Inverted(sequence, Inversion(positions)))
    return found


def test_it_is_no_task_of_a_run_since_no_verbalizer_is_under_test() -> None:
    assert "invertibility" not in known_tasks()


def test_the_upstream_arm_is_a_hook_at_the_input_of_the_site_block(subject: Subject) -> None:
    shift = shifts_of(subject, 2.0)["steered"]

    def add(_: object, __: object, output: torch.Tensor) -> torch.Tensor:
        return output + shift

    handle = subject.blocks[SITE - 1].register_forward_hook(add)
    with torch.inference_mode():
        out = subject.model(input_ids=torch.tensor([PROMPTS[0]]), output_hidden_states=True)
    handle.remove()
    moved = moved_upstream(subject, PROMPTS[0], SITE, shift)
    torch.testing.assert_close(moved, out.hidden_states[SITE + 1][0], rtol=1e-4, atol=1e-4)


def test_every_arm_holds_the_same_prompts_and_the_graft_moves_as_far_as_the_steered(subject: Subject) -> None:
    made = make_sequences(subject, SITE, PROMPTS, shifts_of(subject, 3.0))
    by_arm: dict[str, list[StateSequence]] = {}
    for sequence in made:
        by_arm.setdefault(sequence.arm, []).append(sequence)
    assert set(by_arm) == {"natural", "steered", "random", "steered_readout", "graft"}
    for own in by_arm.values():
        assert [list(sequence.ids) for sequence in own] == PROMPTS
    for grafted, steered in zip(by_arm["graft"], by_arm["steered"], strict=True):
        torch.testing.assert_close(grafted.shift, steered.shift, rtol=1e-3, atol=1e-4)
    for moved in by_arm["steered_readout"]:
        torch.testing.assert_close(moved.shift, torch.full((len(moved.ids),), 3.0), rtol=1e-4, atol=1e-4)
    assert len({sequence.name for sequence in made}) == len(made)


def test_a_graft_goes_toward_the_others_last_state_where_both_prompts_begin_alike() -> None:
    natural, other = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    moved = move_toward(natural, other, torch.tensor([1.0, 0.5]))
    way = torch.tensor([-1.0, 3.0]) / 10**0.5
    torch.testing.assert_close(moved[0], natural[0] + way)
    torch.testing.assert_close(moved[1], torch.tensor([0.0, 1.5]))


@pytest.mark.parametrize("given", [0, 2])
def test_natural_prompts_come_back_and_no_moved_state_is_farther_than_its_shift(subject: Subject, given: int) -> None:
    made = make_sequences(subject, SITE, PROMPTS, shifts_of(subject, 3.0), given=given)
    inverted = invert_sequences(Scanner(subject, SITE), made, given=PROMPTS[0][:given])
    arms = {summary.arm: summary for summary in summarise(inverted)}
    assert arms["natural"].exact == arms["natural"].n_prompts == len(PROMPTS)
    assert arms["natural"].relative == arms["natural"].n_positions == sum(map(len, PROMPTS)) - given * len(PROMPTS)
    for one in inverted:
        for position, shift, norm in zip(
            one.inversion.positions, one.sequence.shift, one.sequence.natural.norm(dim=-1), strict=True
        ):
            assert position.distance <= float(shift) + 2e-5 * float(norm)
    for arm in ("steered", "random", "steered_readout", "graft"):
        assert arms[arm].distance_over_shift <= 1 + 1e-4
        assert arms[arm].ratio < arms["natural"].ratio


def test_natural_against_itself_is_one_half_and_apart_is_one() -> None:
    natural = invented([[30.0, 50.0, 41.0], [22.0, 90.0, 35.0], [60.0, 31.0, 28.0]], "natural")
    same = invented([[30.0, 50.0, 41.0], [22.0, 90.0, 35.0], [60.0, 31.0, 28.0]], "steered")
    value, low, high = ratio_auroc(natural, same)
    assert value == pytest.approx(0.5)
    assert low == pytest.approx(0.5)
    assert high == pytest.approx(0.5)  # each draw holds the same prompts of both
    apart = invented([[1.1, 1.2, 1.3], [1.4, 1.1, 1.0], [1.2, 1.3, 1.9]], "steered")
    assert ratio_auroc(natural, apart) == (1.0, 1.0, 1.0)
    mixed = invented([[29.0, 1.2, 70.0], [1.4, 33.0, 1.0], [1.2, 1.3, 1.9]], "steered")
    value, low, high = ratio_auroc(natural, mixed)
    assert low < value < high


def test_int8_rounds_each_weight_by_at_most_half_a_step_and_leaves_the_subject_alone(subject: Subject) -> None:
    before = {name: weight.clone() for name, weight in subject.model.named_parameters()}
    rounded = quantise(subject)
    for name, weight in subject.model.named_parameters():
        assert torch.equal(weight, before[name])
    moved = 0
    for name, weight in rounded.model.named_parameters():
        if not torch.equal(weight, before[name]):
            moved += 1
            step = before[name].abs().amax(dim=1, keepdim=True) / 127
            assert ((weight - before[name]).abs() <= step * 0.501).all()
    assert moved >= 7 * subject.n_blocks
    assert rounded.fingerprint != subject.fingerprint


def test_a_subject_with_int8_weights_is_inverted_by_its_own_scan_and_not_by_the_others(subject: Subject) -> None:
    rounded = quantise(subject)
    states = natural_states(rounded, PROMPTS[0], SITE)
    sequence = StateSequence("natural", 0, 0.0, tuple(PROMPTS[0]), states, states)
    own = invert_sequences(Scanner(rounded, SITE), [sequence])[0].inversion
    other = invert_sequences(Scanner(subject, SITE), [sequence])[0].inversion
    assert own.equals(PROMPTS[0])
    assert all(position.meets()["relative"] for position in own.positions)
    assert not any(position.meets()["relative"] for position in other.positions)
