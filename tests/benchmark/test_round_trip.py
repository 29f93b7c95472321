"""Facts about running on: a vector put in the place of a state gives what the whole model gives, and costs less."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nlabench.benchmark import round_trip
from nlabench.benchmark.activations import Readout, Site
from nlabench.benchmark.engine import LocalEngine, Progress
from nlabench.benchmark.reading import FOLLOWING_TOKENS, make_preamble, read_states
from nlabench.benchmark.round_trip import divergences, make_round_trips, put_back
from nlabench.benchmark.store import Store
from nlabench.benchmark.subject import Subject
from torch import Tensor

FIRST = [3, 41, 17, 29, 8, 33, 52]  # longer than the tiny models' window of 5
TEXT = [11, 4, 50, 9, 23, 42, 7, 36, 19, 5, 31, 44, 6, 15, 27]
INDEX = 3
SENTENCE = "The rain fell on the roof of the barn and the two horses stood quietly in the dark until the morning came"


def draw(subject: Subject, n: int, seed: int = 3) -> Tensor:
    return torch.randn(n, subject.d_model, generator=torch.Generator().manual_seed(seed)) * 2


def own_state(subject: Subject, ids: Sequence[int], index: int, layer: int) -> Tensor:
    tokens = torch.tensor([list(ids)])
    return subject.run(tokens, torch.ones_like(tokens), capture=[layer])[layer][0, index].clone()


def hooked_logits(subject: Subject, ids: Sequence[int], index: int, layer: int, vector: Tensor | None) -> Tensor:
    """transformers' own logits, nothing cached or skipped, with a plain hook that replaces one state (or none)."""

    def replace(_: object, __: object, output: Tensor | tuple[Tensor, ...]) -> object:
        if vector is None:
            return output
        states = (output[0] if isinstance(output, tuple) else output).clone()
        states[:, index] = vector
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = subject.blocks[layer].register_forward_hook(replace)
    try:
        with torch.inference_mode():
            logits: Tensor = subject.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    finally:
        handle.remove()
    return logits.double().log_softmax(-1)


def loss_after(log_probs: Tensor, ids: Sequence[int], index: int) -> float:
    gold = torch.tensor(ids[index + 1 : index + 1 + FOLLOWING_TOKENS])
    return float(-log_probs[index : index + FOLLOWING_TOKENS].gather(1, gold[:, None]).mean())


def kl(log_p: Tensor, log_q: Tensor) -> float:
    return float((log_p.exp() * (log_p - log_q)).sum())


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_what_is_put_back_gives_what_the_whole_model_gives_with_a_hook(any_tiny: Subject, layer: int) -> None:
    whole, at = FIRST + TEXT, len(FIRST) + INDEX
    origins = torch.stack([own_state(any_tiny, whole, at, layer), draw(any_tiny, 1)[0]])
    others = draw(any_tiny, 9, seed=5)
    found, losses = put_back(any_tiny, any_tiny.make_prefix(FIRST), TEXT, INDEX, layer, origins, others)
    runs = [hooked_logits(any_tiny, whole, at, layer, vector) for vector in torch.cat([origins, others])]
    for number, run in enumerate(runs):
        assert float(losses[number]) == pytest.approx(loss_after(run, whole, at), rel=1e-4, abs=1e-4)
        for origin in range(2):
            assert float(found[origin, number]) == pytest.approx(kl(runs[origin][at], run[at]), rel=1e-3, abs=1e-4)
    plain = hooked_logits(any_tiny, whole, at, layer, None)
    assert float(losses[0]) == pytest.approx(loss_after(plain, whole, at), rel=1e-4, abs=1e-4)
    assert kl(plain[at], runs[0][at]) < 1e-6
    assert float(found.diagonal().max()) < 1e-12


def test_the_default_subject_computes_what_it_computes_with_a_hook(subject: Subject) -> None:
    ids, preamble, layer = subject.encode(SENTENCE), make_preamble(subject, subject.n_blocks - 1), 19
    state = dict(read_states(subject, preamble, [ids], [layer]))[0][layer][6]
    other = draw(subject, 1)[0] * state.norm() / 40
    found, losses = put_back(subject, preamble, ids, 6, layer, state[None], other[None])
    whole, at = [*preamble.ids, *ids], len(preamble.ids) + 6
    plain, replaced = (hooked_logits(subject, whole, at, layer, vector) for vector in (None, other))
    assert losses.tolist() == pytest.approx([loss_after(run, whole, at) for run in (plain, replaced)], rel=1e-4)
    assert float(found[0, 1]) == pytest.approx(kl(plain[at], replaced[at]), rel=1e-4)
    assert float(found[0, 1]) > 1


@pytest.mark.parametrize("family", ["llama", "gemma3-text", "gpt2"])
def test_a_vectors_figures_are_the_same_to_the_bit_whatever_else_is_put_back(
    tiny: Callable[[str], Subject], family: str
) -> None:
    subject = tiny(family)
    prefix, origins, others = subject.make_prefix(FIRST), draw(subject, 1), draw(subject, 20, seed=5)
    together = put_back(subject, prefix, TEXT, INDEX, 1, origins, others)
    for number in (0, 6, 7, 19):
        alone = put_back(subject, prefix, TEXT, INDEX, 1, origins, others[number : number + 1])
        assert torch.equal(together[1][[0, number + 1]], alone[1])
        assert torch.allclose(together[0][:, [0, number + 1]], alone[0], rtol=0, atol=1e-12)


def test_a_vector_costs_the_blocks_after_the_site_and_a_text_is_read_once(tiny: Callable[[str], Subject]) -> None:
    subject = tiny("llama")
    prefix, tokens = subject.make_prefix(FIRST), [0] * subject.n_blocks

    def counter(number: int) -> Callable[..., None]:
        def count(_: object, __: object, output: tuple[Tensor, ...]) -> None:
            tokens[number] += output[0].shape[:2].numel()

        return count

    handles = [block.self_attn.register_forward_hook(counter(i)) for i, block in enumerate(subject.blocks)]
    put_back(subject, prefix, TEXT, INDEX, 1, draw(subject, 1), draw(subject, 39))
    for handle in handles:
        handle.remove()
    before, following, n_vectors = INDEX, FOLLOWING_TOKENS, 40
    to_the_site = before + following
    assert tokens == [to_the_site] * 2 + [before + n_vectors * following] * 2


def test_a_prefix_after_another_is_the_prefix_of_both(any_tiny: Subject) -> None:
    both = any_tiny.make_prefix(FIRST + TEXT)
    after = any_tiny.make_prefix(TEXT, after=any_tiny.make_prefix(FIRST))
    assert after.ids == both.ids
    for mine, wanted in zip((*after.keys, *after.values), (*both.keys, *both.values), strict=True):
        assert torch.allclose(mine, wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="Make it deeper"):
        any_tiny.make_prefix(TEXT, after=any_tiny.make_prefix(FIRST, 1))


@pytest.mark.parametrize("index", [0, len(TEXT) - FOLLOWING_TOKENS, len(TEXT) - 1])
def test_a_readout_without_enough_text_around_it_is_refused(tiny: Callable[[str], Subject], index: int) -> None:
    subject = tiny("llama")
    with pytest.raises(ValueError, match="Take a readout of the kind `mid`"):
        put_back(subject, subject.make_prefix(FIRST), TEXT, index, 1, draw(subject, 1), draw(subject, 1))


def test_a_divergence_is_what_one_computes_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.5], [1 / 4, 3 / 4]]).double().log(), torch.tensor([[1 / 4, 3 / 4]]).double().log()
    assert divergences(p, q)[:, 0].tolist() == pytest.approx([0.5 * math.log(2) + 0.5 * math.log(2 / 3), 0])
    assert divergences(q, p)[0, 0] == pytest.approx(0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2))


class TestOfItems:
    """Several items of two readouts, of which some share a vector."""

    readouts = (Readout("a", 3, "mid", "of"), Readout("b", 4, "mid", "in"), Readout("a", 3, "mid", "of"))

    @pytest.fixture
    def study(self, tiny: Callable[[str], Subject]) -> Any:
        subject = tiny("qwen2")
        texts = {name: SimpleNamespace(ids=tuple(TEXT[shift:] + TEXT[:shift])) for name, shift in (("a", 0), ("b", 4))}
        states = {
            readout: own_state(subject, [*preamble_ids(subject), *texts[readout.text_id].ids], at(subject, readout), 1)
            for readout in self.readouts
        }
        return SimpleNamespace(
            subject=subject, site=Site("tiny", 1, subject.d_model), texts=texts, state=states.__getitem__,
            reading_key=lambda: {"subject": subject.fingerprint},
        )  # fmt: skip

    def test_each_item_gets_the_figures_of_its_own_readout(self, study: Any, tmp_path: Path) -> None:
        own = torch.stack([study.state(self.readouts[0]), *draw(study.subject, 2)])
        vectors = torch.stack([own, *draw(study.subject, 6, seed=5).view(2, 3, -1)], dim=1)
        found = make_round_trips(study, self.readouts, own, vectors, LocalEngine(Store(tmp_path)), "test")
        preamble = make_preamble(study.subject, study.subject.n_blocks - 1)
        for item, readout in enumerate(self.readouts):
            ids, plain = study.texts[readout.text_id].ids, study.state(readout)
            origins = torch.stack([plain, own[item]])
            wanted, losses = put_back(study.subject, preamble, ids, readout.index, 1, origins, vectors[item])
            assert np.allclose(found.kl[item], wanted[1, 2:], rtol=0, atol=1e-9)
            assert np.allclose(found.kl_plain[item], wanted[0, 2:], rtol=0, atol=1e-9)
            assert np.allclose(found.loss[item], losses[2:], rtol=0, atol=1e-9)
        assert found.kl[:, 0].max() < 1e-12
        assert found.kl_plain[0, 0] < 1e-12 < found.kl_plain[1, 0]

    def test_equal_vectors_at_one_readout_are_run_once_and_a_second_time_nothing_is(
        self, study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reports: list[Progress] = []
        engine = LocalEngine(Store(tmp_path), reports.append)
        own = draw(study.subject, 3)
        shared = draw(study.subject, 1, seed=5).expand(3, -1)
        vectors = torch.stack([own, shared, shared], dim=1)
        first = make_round_trips(study, self.readouts, own, vectors, engine, "test")
        # At a: the plain state, two items' own, one that both share. At b: plain, own, shared.
        assert reports[-1].fresh == reports[-1].total == 4 + 3
        again = make_round_trips(study, self.readouts, own, vectors, engine, "test")
        assert reports[-1].fresh == 0
        assert np.array_equal(first.kl, again.kl)
        monkeypatch.setattr(round_trip, "ITEMS_PER_CHUNK", 1)
        split = make_round_trips(study, self.readouts, own, vectors, engine, "test")
        assert np.allclose(first.kl, split.kl, rtol=0, atol=1e-12)
        assert np.array_equal(first.loss, split.loss)


def preamble_ids(subject: Subject) -> tuple[int, ...]:
    return make_preamble(subject, 0).ids


def at(subject: Subject, readout: Readout) -> int:
    return len(preamble_ids(subject)) + readout.index
