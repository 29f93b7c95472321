"""Self-consistency on samples that are planted: the same of one vector, and of any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from nlabench.benchmark.activations import ActivationBatch
from nlabench.benchmark.concepts import load_pack
from nlabench.benchmark.extraction import Activations
from nlabench.benchmark.panel import Panel
from nlabench.benchmark.records import MetricRow
from nlabench.benchmark.roster import Roster
from nlabench.benchmark.scoring.embedding import MINILM, embed
from nlabench.benchmark.statistics import resample
from nlabench.benchmark.study import Study, sketch_study
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.suites import QUICK
from nlabench.benchmark.task import MeasuringTask
from nlabench.benchmark.transcript import Transcript
from nlabench.benchmark.verbalizers.base import Role, Verbalization, VerbalizerCard
from nlabench.benchmark.verbalizing import Verbalized
from nlabench.tasks.self_consistency import TASK, compare_samples
from scipy import stats

SAMPLES, POOL = 4, 40
SUITE = QUICK.model_copy(update={"strengths": (0.1, 0.5, 1.0)})

#: A verbalizer is a function (item's label, its number, pool of texts, rng) -> the item's texts.
Writes = Callable[[pd.Series, int, list[str], np.random.Generator], list[str]]


@pytest.fixture(scope="module")
def study(subject: Subject) -> Study:
    return sketch_study(subject, load_pack(), SUITE)


class Named:
    """A verbalizer whose texts are given to the transcript."""

    def __init__(self, name: str, role: Role) -> None:
        self.card = VerbalizerCard(name=name, role=role)

    def verbalize(self, batch: ActivationBatch) -> list[str]:
        raise NotImplementedError


def transcribe(study: Study, roles: dict[str, Role], **verbalizers: Writes) -> tuple[Transcript, pd.DataFrame]:
    items = pd.DataFrame(
        {
            "item_id": spec.item_id(study.suite.seed), "arm": spec.arm, "injection": spec.injection,
            "level": spec.level, "concept": spec.concept, "prompt": spec.readout.text_id, "kind": spec.readout.kind,
            "position": spec.readout.index, "r": spec.r, "draw": spec.draw, "outlier": False,
        }
        for spec in TASK.items(study)
    )  # fmt: skip
    pool = [text.text for concept in study.pack.concepts for text in concept.texts["scorer"]][:POOL]
    said = {}
    for name, write in verbalizers.items():
        rng = np.random.default_rng(0)
        texts = [write(item, number, pool, rng) for number, (_, item) in enumerate(items.iterrows())]
        wrote = [Verbalization(first, samples=tuple(others)) for first, *others in texts]
        said[name] = Verbalized(wrote, 1.0, len(texts), None, None)
    roster = Roster({name: Named(name, roles.get(name, "submitted")) for name in verbalizers}, {})
    activations, engine = Activations(torch.zeros(len(items), 1), items), None
    return Transcript(study, activations, roster, said, {}, engine), items  # type: ignore[arg-type]


def score(study: Study, roles: dict[str, Role] | None = None, **verbalizers: Writes) -> list[MetricRow]:
    transcript, items = transcribe(study, roles or {}, **verbalizers)
    natural = {text: i for i, text in enumerate(sorted(items.loc[items["arm"] == "natural", "prompt"].unique()))}
    readout = {prompt.text.id: i for i, prompt in enumerate(study.readout_prompts)}
    items["prompt_number"] = items["prompt"].map({**natural, **readout})
    items["concept_number"] = items["concept"].map({name: i for i, name in enumerate(study.pack.names)})
    panel = Panel(
        items, np.zeros((0, len(items), len(study.pack.names))), [], {}, {}, study.pack.names, study.pack.families, {},
        resample(len(study.pack.names), len(study.readout_prompts), 10), TASK.measure(transcript),
    )  # fmt: skip
    return TASK.score(panel)


def one(rows: list[MetricRow], metric: str, verbalizer: str, arm: str, r: float | None = None) -> MetricRow:
    wanted = {"metric": metric, "verbalizer": verbalizer, "arm": arm, "r": r}
    found = [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]
    assert len(found) == 1, (wanted, len(found))
    return found[0]


def repeats(item: pd.Series, number: int, pool: list[str], rng: np.random.Generator) -> list[str]:
    """One text of each vector, word for word."""
    return [pool[number % POOL]] * SAMPLES


def draws_at_random(item: pd.Series, number: int, pool: list[str], rng: np.random.Generator) -> list[str]:
    return [pool[i] for i in rng.integers(POOL, size=SAMPLES)]


def repeats_on_natural(item: pd.Series, number: int, pool: list[str], rng: np.random.Generator) -> list[str]:
    write = repeats if item["arm"] == "natural" else draws_at_random
    return write(item, number, pool, rng)


def says_one_thing(item: pd.Series, number: int, pool: list[str], rng: np.random.Generator) -> list[str]:
    return [pool[0]] * SAMPLES


def answers_once(item: pd.Series, number: int, pool: list[str], rng: np.random.Generator) -> list[str]:
    return [pool[number % POOL]]


CELLS = [("natural", None), ("neutral", 0.0), ("gaussian", None)]
CELLS += [(arm, r) for arm in ("steered", "permuted") for r in SUITE.strengths]


def test_self_consistency_is_a_task_that_measures() -> None:
    assert isinstance(TASK, MeasuringTask)


def test_one_text_of_each_vector_agrees_fully_and_beyond_other_vectors(study: Study) -> None:
    rows = score(study, repeats=repeats)
    assert {(row.arm, row.r) for row in rows} == set(CELLS)
    for arm, r in CELLS:
        assert one(rows, "agreement", "repeats", arm, r).value == 1.0
        assert one(rows, "agreement_over_others", "repeats", arm, r).low > 0.5


def test_samples_drawn_from_everybodys_texts_agree_no_more_than_others_do(study: Study) -> None:
    rows = score(study, random=draws_at_random)
    held = [one(rows, "agreement_over_others", "random", arm, r) for arm, r in CELLS]
    assert all(row.low < row.value < row.high for row in held)
    # Nine intervals of 95%, of cells whose texts are drawn apart: more than one that misses is a case of 7 in 100.
    assert sum(row.low < 0 < row.high for row in held) >= len(held) - 1
    assert one(rows, "agreement", "random", "natural").value > 0.02  # texts are somewhat alike all the same


def test_the_interval_is_what_leaving_out_an_item_and_its_share_in_the_others_gives(study: Study) -> None:
    row = one(score(study, repeats=repeats), "agreement_over_others", "repeats", "neutral", 0.0)
    transcript, items = transcribe(study, {}, repeats=repeats)
    neutral = np.flatnonzero(items["arm"] == "neutral")
    said = transcript.verbalized["repeats"].texts
    left_out = []
    for item in neutral:
        kept = neutral[neutral != item]
        within, between = compare_samples([said[row] for row in kept], items.iloc[kept])
        left_out.append((within - between).mean())
    n = len(neutral)
    variance = (n - 1) * np.var(left_out) * n / (n - 1)  # the jackknife's, and what a linear scale adds to it
    reach = stats.t.ppf(0.975, n - 1) * np.sqrt(variance)
    assert (row.high - row.low) / 2 == pytest.approx(reach, rel=0.1)


def test_saying_one_thing_of_everything_is_full_agreement_and_nothing_over_others(study: Study) -> None:
    rows = score(study, stuck=says_one_thing)
    for arm, r in CELLS:
        assert one(rows, "agreement", "stuck", arm, r).value == 1.0
        assert one(rows, "agreement_over_others", "stuck", arm, r).value == 0.0


def test_who_knows_natural_vectors_and_guesses_at_noise_shows_it(study: Study) -> None:
    rows = score(study, half=repeats_on_natural)
    natural, gaussian = (one(rows, "agreement_over_others", "half", arm) for arm in ("natural", "gaussian"))
    assert natural.low > 0.5
    assert abs(gaussian.value) < 0.1
    assert gaussian.high < natural.low


def test_who_writes_one_text_of_each_vector_and_who_is_a_floor_have_no_rows(study: Study) -> None:
    rows = score(study, {"average": "floor"}, once=answers_once, average=says_one_thing, repeats=repeats)
    assert {row.verbalizer for row in rows} == {"repeats"}


def test_items_without_samples_are_counted(study: Study) -> None:
    some = study.pack.names[0]

    def fails(item: pd.Series, number: int, pool: list[str], rng: np.random.Generator) -> list[str]:
        return [""] if item["concept"] == some else repeats(item, number, pool, rng)

    row = one(score(study, fails=fails), "agreement", "fails", "natural")
    n = SUITE.natural_per_concept
    assert row.n_items == (SUITE.n_concepts - 1) * n
    assert f"{n} of {SUITE.n_concepts * n} items without samples" in row.note


def test_sums_of_embeddings_give_the_mean_over_pairs() -> None:
    texts = [
        ["A recipe for bread.", "How to bake a loaf."], ["A football match.", "The goal came late.", "A game."],
        ["A letter to a bank.", "Money was sent."], ["A storm at sea."],
    ]  # fmt: skip
    labels = pd.DataFrame(
        {
            "item_id": list("abcd"), "arm": "steered", "injection": "readout", "level": "grid", "kind": "function",
            "r": 1.0, "concept": ["x", "x", "y", "z"], "prompt": ["p", "q", "p", "q"], "draw": 0,
        }
    )  # fmt: skip
    within, between = compare_samples([Verbalization(t[0], samples=tuple(t[1:])) for t in texts], labels)
    a, b, c, d = (embed(MINILM, own) for own in texts)
    assert within[:3] == pytest.approx([(a[0] @ a[1]), (b @ b.T)[np.triu_indices(3, 1)].mean(), c[0] @ c[1]], abs=1e-5)
    assert np.isnan(within[3])  # one text
    # a shares its concept with b and its prompt with c; b its prompt with d.
    expected = [(a @ d.T).mean(), (b @ c.T).mean(), np.concatenate([(c @ b.T), (c @ d.T)], axis=1).mean()]
    assert between == pytest.approx([*expected, np.concatenate([d @ a.T, d @ c.T], axis=1).mean()], abs=1e-5)


def label_cell(**columns: list[Any]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    same = {"arm": "permuted", "injection": "readout", "level": "grid", "kind": "function", "r": 1.0, "draw": 0}
    own = {"item_id": [f"i{i}" for i in range(n)], "prompt": [f"p{i}" for i in range(n)], "concept": [None] * n}
    return pd.DataFrame({**{name: [value] * n for name, value in same.items()}, **own, **columns})


SAID = [
    Verbalization(one, samples=(other,)) for one, other in (("bread", "a loaf"), ("rain", "snow"), ("a bank", "money"))
]


def test_items_moved_in_one_direction_are_no_others() -> None:
    """Two prompts moved far in one direction are nearly one vector: the same text of both is no lack of agreement."""
    shared = compare_samples(SAID, label_cell(draw=[3, 3, 5]))[1]
    first, last = embed(MINILM, ["bread", "a loaf"]), embed(MINILM, ["a bank", "money"])
    assert shared[0] == pytest.approx((first @ last.T).mean(), abs=1e-5)
    assert np.isnan(compare_samples(SAID, label_cell(draw=[3, 3, 3]))[1]).all()
    assert np.isfinite(compare_samples(SAID, label_cell(arm=["neutral"] * 3))[1]).all()


def test_items_of_other_cells_are_no_others() -> None:
    assert np.isnan(compare_samples(SAID, label_cell(arm=["neutral", "gaussian", "steered"]))[1]).all()
    assert np.isnan(compare_samples(SAID, label_cell(r=[0.1, 0.5, 1.0], draw=[0, 1, 2]))[1]).all()
