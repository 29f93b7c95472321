"""Facts about detectors, on clouds whose shape is planted and on the states of a real subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nlabench.benchmark.activations import ActivationBatch, Site
from nlabench.benchmark.concepts import Text, load_pack
from nlabench.benchmark.detectors import OF_THE_VECTOR, ask_detector, find_detector, unmoved_states
from nlabench.benchmark.engine import LocalEngine
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.planning import plan_items
from nlabench.benchmark.reading import make_preamble, read_states, tokenize
from nlabench.benchmark.statistics import Clusters, Interval, Negatives, intervals, macro_auroc
from nlabench.benchmark.steering import add_at_readout, permuted_directions, random_directions, unit
from nlabench.benchmark.store import Store
from nlabench.benchmark.study import Readings, default_layer, sketch_study
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.suites import QUICK
from nlabench.benchmark.task import known_tasks
from nlabench.benchmark.verbalizers.asking import Asked
from nlabench.benchmark.verbalizers.base import VerbalizerCard, wrap_function
from torch import Tensor

D, FITTED = 32, 400

#: Standard deviations of the cloud's coordinates: two that vary much, one giant as a residual stream has them.
SPREADS = torch.cat([torch.tensor([200.0, 8.0, 8.0]), torch.ones(D - 3)])


def draw_cloud(n: int, seed: int) -> Tensor:
    noise = torch.randn(n, D, generator=torch.Generator().manual_seed(seed))
    return 3 + noise * SPREADS


def tell_apart(name: str, moved: Tensor, unmoved: Tensor, fitted: Tensor | None = None) -> Interval:
    """The AUROC of one detector between two independent samples, every vector a unit of its own."""
    fitted = draw_cloud(FITTED, seed=10_000) if fitted is None else fitted
    high, low = (OF_THE_VECTOR[name](fitted, vectors) for vectors in (moved, unmoved))
    ids = np.arange(len(moved))

    def as_columns(values: Any) -> Any:
        return np.broadcast_to(values[None, :, None], (1, len(values), len(ids)))

    against = Negatives(as_columns(low), Clusters.of_prompts(np.arange(len(unmoved))))
    estimate = macro_auroc(as_columns(high), Clusters(ids, ids, nested=True), negatives=against, n_prompts=len(unmoved))
    return intervals(estimate)[0]


def shift(states: Tensor, coordinate: int, by: float) -> Tensor:
    moved = states.clone()
    moved[:, coordinate] += by
    return moved


@pytest.mark.parametrize("name", OF_THE_VECTOR)
def test_where_nothing_was_moved_the_interval_holds_one_half(name: str) -> None:
    found = [tell_apart(name, draw_cloud(24, seed), draw_cloud(24, 500 + seed)) for seed in range(20)]
    assert sum(each.low <= 0.5 <= each.high for each in found) >= 18
    assert np.mean([each.estimate for each in found]) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("name", ["mahalanobis", "nearest_neighbours"])
def test_what_was_moved_far_is_detected_and_the_further_the_better(name: str) -> None:
    unmoved, direction = draw_cloud(24, 1), unit(torch.ones(D)[None])[0]
    found = [tell_apart(name, draw_cloud(24, 2) + by * direction, unmoved).estimate for by in (1.0, 5.0, 40.0)]
    assert found == sorted(found)
    assert found[-1] > 0.99


def test_a_shift_along_what_varies_is_seen_less_than_one_as_long_across_it() -> None:
    moved, unmoved = draw_cloud(40, 1), draw_cloud(40, 2)
    for name in ("mahalanobis", "nearest_neighbours"):
        along, across = (tell_apart(name, shift(moved, axis, 8.0), unmoved).estimate for axis in (1, 7))
        assert across > 0.95
        assert along < across - 0.2


def test_a_giant_coordinate_hides_no_shift_of_the_others() -> None:
    moved, unmoved = draw_cloud(40, 1), draw_cloud(40, 2)
    assert tell_apart("norm", shift(moved, 7, 8.0), unmoved).estimate < 0.7
    assert tell_apart("nearest_neighbours", shift(moved, 7, 8.0), unmoved).estimate > 0.95


def test_the_norm_sees_length_and_nothing_else() -> None:
    fitted, vectors = draw_cloud(FITTED, 0), draw_cloud(10, 1)
    turned = vectors.flip(-1)
    assert OF_THE_VECTOR["norm"](fitted, turned) == pytest.approx(OF_THE_VECTOR["norm"](fitted, vectors))
    assert OF_THE_VECTOR["mahalanobis"](fitted, turned).min() > OF_THE_VECTOR["mahalanobis"](fitted, vectors).max()
    assert OF_THE_VECTOR["norm"](fitted, 5 * vectors) == pytest.approx(5 * OF_THE_VECTOR["norm"](fitted, vectors))


@pytest.mark.parametrize("name", OF_THE_VECTOR)
def test_a_value_depends_on_the_fitted_texts_and_on_no_other_item(name: str) -> None:
    fitted, vectors = draw_cloud(FITTED, 0), draw_cloud(12, 1)
    together = OF_THE_VECTOR[name](fitted, torch.cat([vectors, 100 * vectors]))
    assert together[:12] == pytest.approx(OF_THE_VECTOR[name](fitted, vectors))


def test_no_item_of_any_task_takes_part_in_the_fit(subject: Subject) -> None:
    sketch = sketch_study(subject, load_pack(), QUICK)
    readouts = [readout for text in sketch.texts.values() for readout in text.readouts]
    numbered = {readout: torch.tensor([float(i)]) for i, readout in enumerate(readouts)}
    study = replace(sketch, readings=Readings(numbered, {}, {}, 1.0))
    items = plan_items(study, list(known_tasks().values()))
    of_items = {readout.text_id for item in items for readout in (item.readout, item.pair) if readout}
    fitted = {readouts[int(i)].text_id for i in unmoved_states(study)[:, 0]}
    assert len(fitted) > 100
    assert not fitted & of_items
    assert {text.partition("/")[0] for text in fitted} == {"neutral", *study.pack.names}


def test_on_a_real_stream_a_random_shift_is_seen_sooner_than_one_within_its_covariance(subject: Subject) -> None:
    neutral = load_pack().neutral
    fitted = torch.cat(read_function_words(subject, neutral["reference"][:32]))
    prompts = [states[-1] for states in read_function_words(subject, neutral["readout"][:16])]
    unmoved, moved = torch.stack(prompts[::2]), torch.stack(prompts[1::2])
    within = permuted_directions({"half": fitted[::2]}, fitted[1::2], 8, seed=0)
    random = random_directions(subject.d_model, 8, seed=0)

    def detected(name: str, directions: Tensor, r: float) -> float:
        vectors = torch.cat([add_at_readout(moved, direction.expand_as(moved), r) for direction in directions])
        return tell_apart(name, vectors, unmoved, fitted).estimate

    assert detected("mahalanobis", random, 0.3) > detected("mahalanobis", within, 0.3) + 0.15
    assert detected("norm", random, 0.3) == pytest.approx(detected("norm", within, 0.3), abs=0.1)
    assert all(detected(name, random, 2.0) > 0.99 for name in OF_THE_VECTOR)


def read_function_words(subject: Subject, texts: Sequence[Text]) -> list[Tensor]:
    """States at the function words of each text that has any [n_words, d_model]."""
    layer = default_layer(subject)
    tokenized = [text for text in tokenize(subject, texts) if text.function]
    states = dict(read_states(subject, make_preamble(subject, layer), [text.ids for text in tokenized], [layer]))
    return [states[i][layer][[readout.index for readout in text.function]] for i, text in enumerate(tokenized)]


# -- what a verbalizer says itself ----------------------------------------------------------------------------------

SITE = Site("nobody", 3, D)


class Rejecting:
    """A verbalizer with a reject option. `values` is what it returns of a batch; seen: what it was given."""

    card = VerbalizerCard(name="mine")

    def __init__(self, values: Any = None) -> None:
        self.values, self.seen = values, []

    def verbalize(self, batch: ActivationBatch) -> list[str]:
        return ["text"] * len(batch)

    def detect(self, batch: ActivationBatch) -> Any:
        self.seen.append(batch)
        found = batch.vectors.norm(dim=-1) if self.values is None else self.values(batch)
        batch.vectors.zero_()  # as an implementation may that works in place
        return found


def ask(verbalizer: Any, vectors: Tensor, folder: Path) -> Any:
    return ask_detector(verbalizer, verbalizer, vectors, SITE, LocalEngine(Store(folder)))


def test_a_verbalizers_own_detector_sees_vectors_and_their_site_and_nothing_else(tmp_path: Path) -> None:
    vectors = draw_cloud(6, 0)
    vectors[5] = vectors[0]
    before, mine = vectors.clone(), Rejecting()
    found = ask(mine, vectors, tmp_path)
    assert found == pytest.approx(before.norm(dim=-1).numpy())
    assert torch.equal(vectors, before)
    assert len(mine.seen[0]) == 5  # equal vectors are one question
    assert all(vars(batch).keys() == {"vectors", "site"} and batch.site == SITE for batch in mine.seen)


def test_what_was_asked_once_is_taken_from_the_store(tmp_path: Path) -> None:
    first, again = Rejecting(), Rejecting()
    found = ask(first, draw_cloud(6, 0), tmp_path)
    assert ask(again, draw_cloud(6, 0), tmp_path) == pytest.approx(found)
    assert first.seen
    assert not again.seen


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (lambda batch: [0.0], r"was given 6 vectors and returned an array \[1\]"),
        (lambda batch: batch.vectors[:, :1], r"returned an array \[6, 1\]"),
        (lambda batch: 0.5, r"returned an array \[\]"),
        (lambda batch: [float("nan")] * len(batch), r"returned NaN or infinite values \(6 of 6\)"),
        (lambda batch: ["moved"] * len(batch), "a list that holds other things than numbers"),
        (lambda batch: None, "a NoneType that holds other things than numbers"),
        (lambda batch: {}[0], "failed on 6 vectors: KeyError"),
        (lambda batch: [len(batch)] * len(batch), "may not depend on the other vectors"),
    ],
)
def test_a_detector_that_returns_something_else_is_refused_and_told_why(tmp_path: Path, values: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said) as refused:
        ask(Rejecting(values), draw_cloud(6, 0), tmp_path)
    assert "'mine'" in str(refused.value)


class Oracle:
    card = VerbalizerCard(name="oracle")

    def answer(self, batch: ActivationBatch, question: str) -> list[str]:
        return [question] * len(batch)

    def detect(self, batch: ActivationBatch) -> list[float]:
        return [0.0] * len(batch)


def test_only_who_offers_a_detector_is_asked() -> None:
    mine, oracle = Rejecting(), Oracle()
    assert find_detector(mine) is mine
    assert find_detector(Asked(oracle)) is oracle
    assert find_detector(wrap_function(lambda vectors: ["text"] * len(vectors))) is None
