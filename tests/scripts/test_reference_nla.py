"""How the reference NLA is made: no text of the pack, training that resumes, gradients in the right direction."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from nlabench.benchmark.concepts import load_pack
from nlabench.benchmark.loading import load_subject
from nlabench.benchmark.nla.checkpoint import REFERENCE_FOLDER
from nlabench.benchmark.subject import Subject
from reference_nla import reinforce, warm_start
from reference_nla.documents import (
    LONGEST_SHARED_RUN,
    Document,
    leave_out_pack,
    leave_out_shared,
    load_documents,
    word_runs,
)
from reference_nla.examples import Example, Examples, choose_positions, learn_themes
from reference_nla.held_out import bootstrap_ratio
from reference_nla.reinforce import Recipe, advantages_in_groups, between_tags, sample_texts
from reference_nla.trainees import Actor, Critic, load_state
from reference_nla.warm_start import Schedule, train
from torch import Tensor, nn

SCALE, RANK = 230.0, 24


class Line:
    """A trainee of one weight matrix: a text's number is to be found in its vector."""

    def __init__(self, stop_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.layer, self.stop_at, self.seen = nn.Linear(3, 1), stop_at, 0

    def loss(self, vectors: Tensor, explanations: list[str]) -> Tensor:
        if torch.is_grad_enabled():
            self.seen += 1
            if self.seen == self.stop_at:
                raise KeyboardInterrupt
        return (self.layer(vectors)[:, 0] - torch.tensor([float(t) for t in explanations])).square().mean()

    def parameters(self) -> list[nn.Parameter]:
        return list(self.layer.parameters())

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.layer.state_dict().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.layer.load_state_dict(state)


def numbered(n: int) -> Examples:
    vectors = torch.randn(n, 3, generator=torch.Generator().manual_seed(1))
    return Examples(vectors, [Example("numbers", f"{float(v.sum()):.4f}") for v in vectors])


def test_training_that_was_stopped_ends_where_undisturbed_training_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_start, "STEPS_BETWEEN_SAVES", 4)
    data, schedule = numbered(40), Schedule(12, batch=8, rate=0.05)
    whole = Line()
    train(whole, data, data, schedule, tmp_path / "whole", 3, lambda _: None)
    with pytest.raises(KeyboardInterrupt):  # in the tenth step, two past the last save
        train(Line(stop_at=10), data, data, schedule, tmp_path / "stopped", 3, lambda _: None)
    again = Line()
    train(again, data, data, schedule, tmp_path / "stopped", 3, lambda _: None)
    assert again.seen == 4  # steps 9 to 12: what was saved is not done again
    assert torch.equal(again.layer.weight, whole.layer.weight)
    assert (tmp_path / "stopped/log.jsonl").read_text() == (tmp_path / "whole/log.jsonl").read_text()


def test_a_document_that_quotes_the_pack_is_left_out() -> None:
    pack = load_pack()
    quoted = pack.concepts[0].texts["natural"][0].text
    fresh = Document("mine", "Text", "Seventeen clerks compared the ledgers twice before anyone thought of asking why.")
    documents = [Document("mine", "Text", f"He wrote: {quoted.upper()} And then he left."), fresh]
    assert leave_out_pack(documents, pack) == [fresh]
    assert leave_out_shared(documents, [fresh.text.upper() + " And more."]) == documents[:1]


@pytest.mark.slow
def test_no_text_of_the_training_set_shares_a_run_of_words_with_the_pack() -> None:
    pack = load_pack()
    documents = leave_out_pack(load_documents(0), pack)
    assert len(documents) > 20_000
    texts = [text.text for concept in pack.concepts for texts in concept.texts.values() for text in texts]
    texts += [text.text for texts in pack.neutral.values() for text in texts] + pack.descriptions
    runs = {run for text in texts for run in word_runs(text, LONGEST_SHARED_RUN + 1)}
    everything = {run for document in documents for run in word_runs(document.text, LONGEST_SHARED_RUN + 1)}
    assert not runs & everything


def test_a_theme_names_words_of_its_text_and_leaves_out_what_every_text_has() -> None:
    common = [Document("a", "Text", f"people often speak of harbours and lanterns number {i}") for i in range(2000)]
    rare = [Document("a", "Story", "the lighthouse keeper counted gulls at dawn") for _ in range(25)]
    theme = learn_themes([*common, *rare])("Story", "gulls and people near the lighthouse at dawn")
    assert theme.startswith("Story about ")
    assert set(theme.removeprefix("Story about ").split(", ")) == {"gulls", "lighthouse", "dawn"}


def test_of_two_readouts_one_is_a_function_word(subject: Subject) -> None:
    ids = subject.encode(
        "Seventeen clerks compared old ledgers twice before anyone thought of asking their manager why"
    )
    chosen = {tuple(choose_positions(subject, ids, 2, random.Random(seed))) for seed in range(20)}
    words = [[subject.tokenizer.decode([ids[i]]).strip() for i in positions] for positions in chosen]
    assert len(chosen) > 3
    assert all(first == "of" and second != "of" for first, second in words)


@pytest.fixture(scope="module")
def actor() -> Actor:
    """The AV that ships, as it is trained: adapters in float32 over a base in bfloat16."""
    made = Actor.start(load_subject(dtype="bfloat16"), RANK, SCALE, 0)
    made.restore(load_state(REFERENCE_FOLDER / "av"))
    return made


@pytest.fixture(scope="module")
def vectors(subject: Subject) -> Tensor:
    """[6, 576]: states at block 19, past the sink."""
    text = (
        "It was late when the ferry came in, and along the quay men were shouting for the ropes to be thrown to them."
    )
    ids = torch.tensor([subject.encode(text * 3)])
    return subject.run(ids, torch.ones_like(ids), capture=[19])[19][0, 60:66].float()


@torch.no_grad()
def test_sharing_the_prompt_gives_the_log_probabilities_of_the_whole_prompt(actor: Actor, vectors: Tensor) -> None:
    targets = [actor.target_ids('Story about ferry: "the quay"'), actor.target_ids("News")]
    shared, mask = actor.log_probabilities(vectors[:2], targets)
    model = actor.peft.get_base_model()
    for row, target in enumerate(targets):
        ids = torch.tensor([[*actor.before, 0, *actor.after, *target]])
        embedded = model.get_input_embeddings()(ids)
        embedded[0, len(actor.before)] = SCALE * nn.functional.normalize(vectors[row], dim=0)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(inputs_embeds=embedded).logits[0, -len(target) - 1 : -1].float()
        whole = logits.log_softmax(-1).gather(1, torch.tensor(target)[:, None])[:, 0]
        assert int(mask[row].sum()) == len(target)
        torch.testing.assert_close(shared[row][mask[row]], whole, atol=0.15, rtol=0.02)  # bfloat16


@torch.no_grad()
def test_a_critic_reads_a_text_alone_as_it_reads_it_in_a_batch() -> None:
    critic = Critic.start(load_subject(dtype="bfloat16"), 19, 16, 0)
    critic.restore(load_state(REFERENCE_FOLDER / "ar"))
    texts = ['News about ships: "into the harbour at"', "French text", 'Review about boots, socks: "they fit"']
    together = critic.predict(texts)
    alone = torch.cat([critic.predict([text]) for text in texts])
    assert float(nn.functional.cosine_similarity(together, alone).min()) > 0.999


def test_advantages_are_centred_in_their_group_and_nothing_is_learned_where_all_are_equal() -> None:
    rewards = torch.tensor([-1.0, -0.5, -0.75, -2.0, -2.0, -2.0])
    found = advantages_in_groups(rewards, 3)
    assert found[:3].argmax() == 1
    torch.testing.assert_close(found[:3].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert found[3:].tolist() == [0.0, 0.0, 0.0]


def test_a_text_without_its_closing_tag_is_no_text() -> None:
    assert between_tags("<explanation>News</explanation>") == "News"
    assert between_tags("<explanation>News about") is None


@pytest.mark.slow
def test_a_step_of_reinforcement_makes_the_better_texts_likelier(
    actor: Actor, vectors: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = actor.state()
    taken: dict[str, Tensor | list[list[int]]] = {}

    def remember(rewards: Tensor, group: int) -> Tensor:
        taken["advantages"] = advantages_in_groups(rewards, group)
        return taken["advantages"]

    def sample(*arguments: object) -> reinforce.Samples:
        found = sample_texts(*arguments)
        taken["ids"] = found.ids
        return found

    monkeypatch.setattr(reinforce, "advantages_in_groups", remember)
    monkeypatch.setattr(reinforce, "sample_texts", sample)
    critic = Critic.start(load_subject(dtype="bfloat16"), 19, 16, 0)
    critic.restore(load_state(REFERENCE_FOLDER / "ar"))
    warm = Actor.start(load_subject(dtype="bfloat16"), RANK, SCALE, 0)
    warm.restore(kept)
    data = Examples(vectors[:2], [Example("mine", "")] * 2)
    recipe = Recipe(1, vectors=2, group=4, rate=1e-4)
    reinforce.reinforce(actor, critic, warm, data, recipe, tmp_path / "rl", 0, lambda _: None)
    rows = reinforce.np.random.default_rng((0, 0)).choice(2, 2, replace=False).repeat(4)
    with torch.no_grad():
        after, mask = actor.log_probabilities(vectors[rows], taken["ids"])
        before, _ = warm.log_probabilities(vectors[rows], taken["ids"])
    gained = ((after - before) * mask).sum(1)
    advantages = taken["advantages"]
    assert isinstance(advantages, Tensor)
    assert float((gained * advantages).sum()) > 0
    assert not torch.equal(actor.state()[min(kept)], kept[min(kept)])
    assert (tmp_path / "rl/checkpoint.pt").exists()
    actor.restore(kept)


def test_the_interval_of_a_ratio_holds_it_and_is_a_point_where_nothing_varies() -> None:
    assert bootstrap_ratio([1.0, 1.0, 1.0], [2.0, 2.0, 2.0]) == (0.5, 0.5, 0.5)
    value, low, high = bootstrap_ratio([1.0, 2.0, 3.0, 2.5], [2.0, 2.0, 2.0, 2.0])
    assert low < value < high
