"""Inversion: the scan is the plain forward, one scan serves many targets, and natural states give their tokens back."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from nlabench.benchmark import inversion_guided, inversion_scan
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.inversion import Criteria, Inversion, Position, invert
from nlabench.benchmark.inversion_guided import estimate_embedding, invert_guided
from nlabench.benchmark.inversion_scan import Scanner
from nlabench.benchmark.steering import add_at_readout, random_directions
from nlabench.benchmark.subject import Subject
from torch import Tensor

SITE = 2
PROMPT = [5, 17, 9, 30, 11, 4]
TEXT = "The harbour was quiet"


def natural_states(subject: Subject, ids: list[int], site: int = SITE) -> Tensor:
    """The stream after the site at every token [n_tokens, d_model], by the model's own plain forward."""
    with torch.inference_mode():
        out = subject.model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    states: Tensor = out.hidden_states[site + 1][0]
    return states.clone()


def plain_state(subject: Subject, prefix: list[int], token: int, site: int = SITE) -> Tensor:
    return natural_states(subject, [*prefix, token], site)[-1]


# -- the scan -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 3, 6])
def test_every_candidates_state_is_that_of_the_plain_forward(any_tiny: Subject, length: int) -> None:
    scanner = Scanner(any_tiny, SITE, rows=16)
    prefix = any_tiny.make_prefix(PROMPT[:length], SITE) if length else scanner.empty_prefix()
    tokens = torch.tensor([0, 3, 21, 38])
    found = torch.cat(list(scanner.states(prefix, tokens, shared=scanner.shares(prefix))))
    for token, state in zip(tokens.tolist(), found, strict=True):
        wanted = plain_state(any_tiny, PROMPT[:length], token)
        assert float((state - wanted).norm() / wanted.norm()) < 2e-5


def test_families_share_the_prefix_until_a_window_is_shorter_than_it(any_tiny: Subject) -> None:
    scanner = Scanner(any_tiny, SITE)
    assert scanner.shares(any_tiny.make_prefix(PROMPT[:2], SITE))
    long = any_tiny.make_prefix(PROMPT * 2, SITE)
    assert scanner.shares(long) is not any_tiny.has_window_under(len(long.ids) + 1)


def test_the_subject_is_left_as_it_was(tiny: Callable[[str], Subject]) -> None:
    subject = tiny("llama")
    before, usual = natural_states(subject, PROMPT), subject.backbone.config._attn_implementation
    scanner = Scanner(subject, SITE, prescan=True)
    scanner.scan(subject.make_prefix(PROMPT[:3], SITE), before[3:4])
    assert subject.backbone.config._attn_implementation == usual
    assert torch.equal(natural_states(subject, PROMPT), before)


def test_one_scan_for_many_targets_equals_a_scan_for_each(any_tiny: Subject) -> None:
    scanner, prefix = Scanner(any_tiny, SITE), any_tiny.make_prefix(PROMPT[:3], SITE)
    targets = natural_states(any_tiny, PROMPT)
    together = scanner.scan(prefix, targets)
    for row, target in enumerate(targets):
        alone = scanner.scan(prefix, target[None])
        assert torch.equal(alone.tokens[0], together.tokens[row])
        assert torch.equal(alone.distances[0], together.distances[row])


def test_the_size_of_the_batches_changes_nothing(any_tiny: Subject) -> None:
    prefix, targets = any_tiny.make_prefix(PROMPT[:3], SITE), natural_states(any_tiny, PROMPT)
    found = [Scanner(any_tiny, SITE, rows=rows).scan(prefix, targets) for rows in (1, 7, 64)]
    for other in found[1:]:
        assert torch.equal(other.tokens, found[0].tokens)
        assert torch.allclose(other.distances, found[0].distances, rtol=1e-4, atol=2e-5 * float(targets.norm()))


def test_a_prescan_changes_no_winner_and_no_distance(any_tiny: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inversion_scan, "MARGIN_SAMPLE", 6)
    monkeypatch.setattr(inversion_scan, "MOST_SURVIVORS", 1.0)
    prefix = any_tiny.make_prefix(PROMPT[:3], SITE)
    natural = natural_states(any_tiny, PROMPT)
    targets = torch.cat([natural, add_at_readout(natural, random_directions(any_tiny.d_model, 6, seed=0), 0.5)])
    plain = Scanner(any_tiny, SITE).scan(prefix, targets, k=2)
    narrowed = Scanner(any_tiny, SITE, prescan=True).scan(prefix, targets, k=2)
    assert torch.equal(narrowed.tokens, plain.tokens)
    if type(any_tiny.blocks[0].mlp).__name__ != "GPT2MLP":  # GPT-2 has linear maps of its own kind: not narrowed
        assert narrowed.error > 0
        assert narrowed.rescored <= plain.rescored
    assert torch.allclose(narrowed.distances, plain.distances, rtol=1e-4, atol=2e-5 * float(natural.norm()))


def test_a_subject_in_bfloat16_is_refused(tiny: Callable[[str], Subject]) -> None:
    subject = copy.deepcopy(tiny("llama"))
    subject.model.to(torch.bfloat16)
    with pytest.raises(BadInput, match="float32"):
        Scanner(subject, SITE)


# -- the inversion --------------------------------------------------------------------------------------------------


def test_natural_states_of_every_family_give_their_tokens_back(any_tiny: Subject) -> None:
    found = invert(Scanner(any_tiny, SITE), {"natural": natural_states(any_tiny, PROMPT)})["natural"]
    assert found.equals(PROMPT)
    assert all(position.meets()["relative"] and position.meets()["ratio"] for position in found.positions)


def test_the_nearest_is_no_farther_than_the_shift(any_tiny: Subject) -> None:
    natural, directions = natural_states(any_tiny, PROMPT), random_directions(any_tiny.d_model, len(PROMPT), seed=1)
    arms = {r: add_at_readout(natural, directions, r) for r in (0.01, 0.1, 0.5, 2.0)}
    found = invert(Scanner(any_tiny, SITE), {str(r): arm for r, arm in arms.items()},
                   forced=dict.fromkeys(map(str, arms), PROMPT))  # fmt: skip
    for r in arms:
        for position, state in zip(found[str(r)].positions, natural, strict=True):
            assert position.distance <= r * float(state.norm()) * (1 + 1e-4)


def test_sequences_that_share_a_prefix_share_the_scan(tiny: Callable[[str], Subject]) -> None:
    subject = tiny("llama")
    other = [*PROMPT[:4], 20, 21]
    targets = {"one": natural_states(subject, PROMPT), "other": natural_states(subject, other)}
    scans: list[int] = []
    found = invert(Scanner(subject, SITE), targets, say=lambda _index, n, _found: scans.append(n))
    assert found["one"].equals(PROMPT)
    assert found["other"].equals(other)
    assert scans == [2, 2, 2, 2, 2, 1, 1]


def test_under_the_true_prefix_as_many_sequences_are_recovered_exactly_as_without(
    tiny: Callable[[str], Subject],
) -> None:
    subject = tiny("qwen2")
    natural = natural_states(subject, PROMPT)
    arms = {
        f"{r} {seed}": add_at_readout(natural, random_directions(subject.d_model, len(PROMPT), seed=seed), r)
        for r in (0.3, 1.0, 3.0)
        for seed in range(4)
    }
    scanner = Scanner(subject, SITE)
    free, forced = invert(scanner, arms), invert(scanner, arms, forced=dict.fromkeys(arms, PROMPT))
    exact = {name: found.equals(PROMPT) for name, found in free.items()}
    assert exact == {name: found.equals(PROMPT) for name, found in forced.items()}
    assert set(exact.values()) == {True, False}


def test_it_stops_where_nothing_is_near_unless_told_to_go_on(tiny: Callable[[str], Subject]) -> None:
    subject = tiny("llama")
    states = natural_states(subject, PROMPT)
    states[3] = add_at_readout(states[3:4], random_directions(subject.d_model, 1, seed=0), 0.05)[0]
    scanner = Scanner(subject, SITE)
    halted = invert(scanner, {"moved": states}, continue_on_failure=False)["moved"]
    assert halted.stopped
    assert len(halted.positions) == 4
    assert not halted.equals(PROMPT)
    assert invert(scanner, {"moved": states})["moved"].equals(PROMPT)


def test_tokens_that_are_given_are_not_searched(tiny: Callable[[str], Subject]) -> None:
    subject = tiny("gemma2")
    found = invert(Scanner(subject, SITE), {"rest": natural_states(subject, PROMPT)[2:]}, given=PROMPT[:2])["rest"]
    assert found.equals(PROMPT[2:])
    assert [position.index for position in found.positions] == [2, 3, 4, 5]


def test_states_of_another_width_are_refused(tiny: Callable[[str], Subject]) -> None:
    with pytest.raises(BadInput, match="one row per token"):
        invert(Scanner(tiny("llama"), SITE), {"wrong": torch.zeros(4, 7)})


def test_the_criteria_are_the_papers_and_ours() -> None:
    position = Position(3, (7, 8), (1e-4, 58.0), 220.0)
    assert position.meets() == {"absolute": False, "relative": True, "ratio": True}
    assert position.meets(Criteria(absolute=1e-3, relative=1e-9, ratio=1e9)) == {
        "absolute": True, "relative": False, "ratio": False,
    }  # fmt: skip
    assert not position.first
    assert Inversion((position,)).share_of([7]) == 1.0


# -- the gradient's order -------------------------------------------------------------------------------------------


def test_a_linear_map_is_undone_by_the_estimate() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings, forward = (torch.randn(n, 12, generator=generator) for n in (400, 12))
    states = embeddings[:300] @ forward
    found = estimate_embedding(states, embeddings[:300], embeddings[350] @ forward)
    assert int(torch.cosine_similarity(embeddings, found[None]).argmax()) == 350


def test_the_guided_order_ends_where_the_scan_ends(any_tiny: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inversion_guided, "SAMPLES", (6, 12))
    monkeypatch.setattr(inversion_guided, "TRIED_AT_ONCE", 2)
    found = invert_guided(Scanner(any_tiny, SITE), natural_states(any_tiny, PROMPT))
    assert [guided.position.token for guided in found] == PROMPT
    assert any(guided.steps for guided in found)


def test_a_state_that_no_token_gives_is_left_to_the_exhaustive_scan(tiny: Callable[[str], Subject]) -> None:
    subject = tiny("llama")
    moved = add_at_readout(
        natural_states(subject, PROMPT), random_directions(subject.d_model, len(PROMPT), seed=5), 0.2
    )
    scanner = Scanner(subject, SITE)
    found = invert_guided(scanner, moved)
    assert all(guided.exhaustive and guided.tried == subject.vocab_size for guided in found)
    assert [guided.position.token for guided in found] == list(invert(scanner, {"moved": moved})["moved"].tokens)


# -- the default subject --------------------------------------------------------------------------------------------


def test_on_the_default_subject_a_candidate_is_the_plain_forward(subject: Subject) -> None:
    ids = subject.encode(TEXT)
    scanner, prefix = Scanner(subject, 19), subject.make_prefix(ids, 19)
    assert scanner.shares(prefix)
    tokens = torch.tensor([260, 4000, 28899])
    found = torch.cat(list(scanner.states(prefix, tokens, shared=True)))
    wanted = torch.stack([plain_state(subject, ids, token, 19) for token in tokens.tolist()])
    assert float(((found - wanted).norm(dim=1) / wanted.norm(dim=1)).max()) < 1e-5


@pytest.mark.slow
def test_the_guided_order_recovers_real_text_and_random_tokens_in_few_tries(subject: Subject) -> None:
    drawn = torch.randint(3, subject.vocab_size, (2,), generator=torch.Generator().manual_seed(0)).tolist()
    for ids in (subject.encode(TEXT), drawn):
        found = invert_guided(Scanner(subject, 19, prescan=True), natural_states(subject, ids, 19))
        assert [guided.position.token for guided in found] == ids
        assert sum(guided.tried for guided in found) < len(ids) * subject.vocab_size / 4


@pytest.mark.slow
def test_the_default_subject_gives_its_prompts_back_and_a_shift_is_as_long_as_its_distance(subject: Subject) -> None:
    first, second = subject.encode(TEXT)[:2]
    drawn = int(torch.randint(3, subject.vocab_size, (), generator=torch.Generator().manual_seed(0)))
    prompts = {"text": [first, second], "random": [first, drawn]}  # one prefix, so that two scans do
    targets, true, norms = {}, {}, {}
    for name, ids in prompts.items():
        natural = natural_states(subject, ids, 2)
        norms[name] = natural.norm(dim=1).tolist()
        directions = random_directions(subject.d_model, len(ids), seed=2)
        for r in (0.0, 0.05, 0.3):
            targets[f"{name} {r}"] = add_at_readout(natural, directions, r)
            true[f"{name} {r}"] = ids
    found = invert(Scanner(subject, 2, prescan=True), targets, forced=true)
    for name, inversion in found.items():
        prompt, r = name.split()[0], float(name.split()[1])
        if r == 0:
            assert inversion.equals(true[name])
            assert all(position.meets()["relative"] for position in inversion.positions)
        for position, norm in zip(inversion.positions, norms[prompt], strict=True):
            # float32 rounds the state itself by a few millionths of its norm
            assert position.distance <= (r + 1e-5) * norm
