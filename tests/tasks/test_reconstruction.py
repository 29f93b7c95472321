"""Reconstruction on real states: who gives the vector back reaches 1, who gives the held-out mean is at its level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nlabench.benchmark.activations import ActivationBatch
from nlabench.benchmark.extraction import readout_direction
from nlabench.benchmark.held_out import held_out_means, held_out_states
from nlabench.benchmark.nla.fidelity import normalize_vectors, spread_nrm
from nlabench.benchmark.panel import Panel
from nlabench.benchmark.records import MetricRow
from nlabench.benchmark.scored import make_panel
from nlabench.benchmark.study import Study
from nlabench.benchmark.transcript import NamedReconstructor, Transcript
from nlabench.tasks.reconstruction import TASK
from torch import Tensor

from .conftest import Coder

pytestmark = pytest.mark.slow
Transcribe = Callable[..., Transcript]


def score(transcript: Transcript) -> list[MetricRow]:
    return TASK.score(measured_panel(transcript))


def measured_panel(transcript: Transcript) -> Panel:
    n = len(transcript.activations.labels)
    scores = {name: np.zeros((1, n, len(transcript.study.pack.names))) for name in transcript.verbalized}
    panel = make_panel(transcript, scores, ["scorer"])
    kept = np.flatnonzero(~transcript.activations.labels["outlier"].to_numpy())
    measured = {
        name: {column: values[kept] for column, values in columns.items()}
        for name, columns in TASK.measure(transcript).items()
    }
    return Panel(**{**panel.__dict__, "measured": measured})


def pick(rows: list[MetricRow], metric: str, **conditions: Any) -> list[MetricRow]:
    found = [r for r in rows if r.metric == metric and all(getattr(r, k) == v for k, v in conditions.items())]
    assert found, (metric, conditions)
    return found


def test_who_gives_the_vector_back_explains_all_and_recovers_the_whole_displacement(transcribe: Transcribe) -> None:
    rows = score(transcribe(Coder("identity")))
    for metric in ("fve", "fve_over_mean", "fve_over_rock", "cosine"):
        for row in pick(rows, metric):
            assert row.value == pytest.approx(1, abs=1e-5), row
    assert {row.arm for row in pick(rows, "fve")} == {
        "natural", "neutral", "steered", "permuted", "random", "graft", "graft_concept", "gaussian",
    }  # fmt: skip
    for row in pick(rows, "displacement_recovered"):
        assert row.value == pytest.approx(1, abs=1e-5), row


def test_the_scale_of_what_comes_back_carries_no_meaning(transcribe: Transcribe) -> None:
    rows = score(transcribe(Coder("scaled", lambda vector: vector / 100)))
    assert all(row.value == pytest.approx(1, abs=1e-5) for row in pick(rows, "fve"))


def test_who_gives_the_held_out_mean_explains_nothing_over_it_and_less_than_nothing_as_the_contract_counts(
    transcribe: Transcribe, small_study: Study
) -> None:
    coder = Coder("mean")
    transcript = transcribe(coder)
    means, _ = held_out_means(small_study, transcript.activations.specs)
    for text, mean in zip(transcript.texts("mean"), means, strict=True):
        coder.book[text] = mean
    rows = [row for row in score(transcript) if row.arm != "gaussian"]  # whose mean is no direction at all
    for row in pick(rows, "fve_over_mean"):
        assert row.value == pytest.approx(0, abs=1e-5), row
    for row in pick(rows, "fve"):  # a direction is longer than the mean, and pays for it
        assert -0.4 < (row.value or 0) < 0, row


def test_who_says_the_concept_and_its_strength_explains_nothing_about_the_mean_that_knows_both(
    transcribe: Transcribe, small_study: Study
) -> None:
    coder = Coder("rock")
    transcript = transcribe(coder)
    specs = transcript.activations.specs
    _, rocks = held_out_means(small_study, specs)
    for text, rock in zip(transcript.texts("rock"), rocks, strict=True):
        coder.book[text] = rock
    rows = score(transcript)
    far = {"arm": "steered", "r": 1.0}
    # About the mean of the cell it explains what tells concepts apart; about its own concept's mean, nothing.
    assert (pick(rows, "fve_over_mean", **far)[0].value or 0) > 0.2
    assert pick(rows, "fve_over_rock", **far)[0].value == pytest.approx(0, abs=1e-5)


def test_a_text_that_says_only_the_prompt_reconstructs_the_unmoved_vector_and_none_of_the_displacement(
    transcribe: Transcribe, small_study: Study
) -> None:
    coder = Coder("of-the-prompt")
    transcript = transcribe(coder)
    for text, spec in zip(transcript.texts("of-the-prompt"), transcript.activations.specs, strict=True):
        coder.book[text] = small_study.state(spec.readout)
    rows = score(transcript)
    for r in (0.3, 1.0):
        at = {"arm": "steered", "r": r}
        assert pick(rows, "fve_unmoved", **at)[0].value == pytest.approx(1, abs=1e-5)
        assert pick(rows, "displacement_recovered", **at)[0].value == pytest.approx(0, abs=1e-5)
    assert (pick(rows, "fve", arm="steered", r=1.0)[0].value or 0) < 0.5


def test_controls_stand_beside_every_figure_and_a_second_reconstructor_where_one_is_given(
    transcribe: Transcribe, small_study: Study
) -> None:
    coder = Coder("identity")
    n = len(transcribe(coder).activations.labels)
    constant = {"constant": ["the same"] * n, "average-direction:identity": ["the average"] * n}
    coder.book.update({"the same": torch.ones(576), "the average": torch.arange(1.0, 577.0)})
    transcript = transcribe(coder, others=constant)
    swap = Coder("swap")
    swap.book = {text: vector.flip(0) for text, vector in coder.book.items()}
    transcript = Transcript(**{**transcript.__dict__, "evaluator": NamedReconstructor("swap", "swap", swap)})
    rows = score(transcript)
    at = {"arm": "natural"}
    for control in ("constant_text", "average_direction", "second_reconstructor"):
        own, theirs = pick(rows, "fve", **at)[0].value, pick(rows, f"fve.{control}", **at)[0].value
        lead = pick(rows, "fve_lead", versus=control, **at)[0]
        assert own is not None
        assert theirs is not None
        assert lead.value == pytest.approx(own - theirs, abs=1e-9)
        assert lead.low is not None
        assert lead.low > 0
    # One text for the moved and for the unmoved activation: nothing comes back.
    assert pick(rows, "displacement_recovered.constant_text", arm="steered", r=1.0)[0].value == 0


def test_quotes_and_wording_are_taken_from_the_texts_of_the_headline_alone(transcribe: Transcribe) -> None:
    class Quoter(Coder):
        def verbalize(self, batch: ActivationBatch) -> list[str]:
            texts = [f'a sad story "{code}"' for code in super().verbalize(batch)]
            self.book.update({text: self.book[text.split('"')[1]] for text in texts})
            return texts

        def reconstruct(self, texts: Any, site: Any) -> Tensor:
            return torch.stack([self.book.get(text, torch.ones(576)) for text in texts])

    rows = score(transcribe(Quoter("quoter")))
    assert (pick(rows, "fve_lead", arm="natural", versus="quotes_stripped")[0].low or 0) > 0
    assert not [row for row in rows if row.metric == "fve.quotes_stripped" and row.level == "grid" and row.r]


def test_held_out_states_are_moved_as_the_item_was_and_are_no_items(transcribe: Transcribe, small_study: Study) -> None:
    transcript = transcribe(Coder("identity"))
    activations, study = transcript.activations, small_study
    items = {tuple(vector.tolist()) for vector in activations.vectors}
    for spec in activations.specs:
        if spec.injection == "upstream" or spec.arm == "gaussian" or spec.readout.kind != "function":
            continue
        states = held_out_states(study, spec)
        assert not items & {tuple(state.tolist()) for state in states}
        if spec.arm == "steered":
            direction = readout_direction(study, spec)
            rest = study.neutral_states("reference", "function")
            moved = (states - rest) @ direction / rest.norm(dim=-1)
            assert moved.tolist() == pytest.approx([spec.r] * len(rest), rel=1e-4)


def test_moving_everything_along_one_direction_does_not_raise_what_a_mean_explains(
    transcribe: Transcribe, small_study: Study
) -> None:
    """About a natural mean the shared r·v̂ counts as variance; about a mean moved the same way it does not."""
    transcript = transcribe(Coder("identity"))
    specs = transcript.activations.specs
    natural_mean = normalize_vectors(small_study.neutral_states("reference", "function")).mean(0)
    means, own = held_out_means(small_study, specs)
    far = [i for i, s in enumerate(specs) if (s.arm, s.injection, s.r, s.level) == ("steered", "readout", 1.0, "grid")]
    vectors = transcript.activations.vectors[far]
    about_natural = spread_nrm(vectors, natural_mean).mean()
    about_own = spread_nrm(vectors, own[far]).mean()
    assert about_own < 0.6 * about_natural
    assert about_own < spread_nrm(vectors, means[far]).mean() < about_natural
