"""Scorers are tested too: what they see, and that they cannot be fed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from nlabench.benchmark.concepts import ConceptPack, load_pack
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.scoring.base import DEFAULT_SCORERS, Standardized, load_scorers, score_unique
from nlabench.benchmark.scoring.validation import agreement, validate_scorer


@pytest.fixture(scope="module")
def pack() -> ConceptPack:
    return load_pack().select(16)


@pytest.fixture(scope="module")
def scorers(pack: ConceptPack) -> list[Standardized]:
    return load_scorers(pack)


def test_every_default_scorer_passes_its_gates(scorers: list[Standardized], pack: ConceptPack) -> None:
    assert [s.name for s in scorers] == list(DEFAULT_SCORERS)
    for scorer in scorers:
        validity = validate_scorer(scorer, pack)
        assert validity.passes, validity
        assert validity.empty == validity.all_concepts == 0.5


def test_a_scorer_blind_to_content_fails_its_gate(pack: ConceptPack) -> None:
    class Length:
        name, fingerprint = "length", "1"

        def score(self, texts: Sequence[str]) -> np.ndarray:
            return np.array([[float(len(text))] * len(pack.names) for text in texts])

    validity = validate_scorer(Length(), pack)
    assert not validity.passes
    assert validity.naming == pytest.approx(0.5, abs=0.05)


def test_a_description_scores_highest_in_its_own_column(scorers: list[Standardized], pack: ConceptPack) -> None:
    for scorer in scorers:
        scores = scorer.score(pack.descriptions)
        assert (scores.argmax(0) == np.arange(len(pack.names))).all(), scorer.name


def test_columns_are_centred_on_neutral_texts(scorers: list[Standardized], pack: ConceptPack) -> None:
    reference = [t.text for t in pack.neutral["reference"]]
    for scorer in scorers:
        scores = scorer.score(reference)
        assert np.allclose(scores.mean(0), 0, atol=1e-9)
        assert np.allclose(scores.std(0, ddof=1), 1)


def test_classifier_takes_neutral_texts_for_none(scorers: list[Standardized], pack: ConceptPack) -> None:
    classifier = scorers[1].scorer
    neutral = classifier.log_probabilities([t.text for t in pack.neutral["readout"]])  # type: ignore[attr-defined]
    assert (neutral.argmax(1) == len(pack.names)).mean() > 0.9
    assert np.allclose(np.exp(neutral).sum(1), 1)


def test_classifier_probabilities_are_calibrated_on_texts_it_never_saw(
    scorers: list[Standardized], pack: ConceptPack
) -> None:
    texts = [(i, t.text) for i, c in enumerate(pack.concepts) for t in c.texts["natural"]]
    logp = scorers[1].scorer.log_probabilities([t for _, t in texts])  # type: ignore[attr-defined]
    labels = np.array([i for i, _ in texts])
    confidence, right = np.exp(logp.max(1)), logp.argmax(1) == labels
    assert confidence.mean() == pytest.approx(right.mean(), abs=0.15)


def test_the_text_does_not_depend_on_what_is_scored_beside_it(scorers: list[Standardized], pack: ConceptPack) -> None:
    texts = [pack.descriptions[0], "", "a sentence about chairs", *pack.descriptions[3:9]]
    for scorer in scorers:
        alone = np.concatenate([scorer.score([text]) for text in texts])
        assert np.allclose(alone, scorer.score(texts), atol=1e-6), scorer.name


def test_repeated_texts_are_scored_once_and_put_back_in_place(pack: ConceptPack) -> None:
    class Counting:
        name, fingerprint, seen = "counting", "1", 0

        def score(self, texts: Sequence[str]) -> np.ndarray:
            self.seen += len(texts)
            return np.array([[float(len(text))] for text in texts])

    scorer = Counting()
    scores = score_unique([scorer], ["aa", "b", "aa", "", "b"])
    assert scores[0, :, 0].tolist() == [2, 1, 2, 0, 1]
    assert scorer.seen == 3


def test_one_scorer_agrees_with_nobody() -> None:
    assert agreement(["alone"], iter([])) == {}


def test_agreement_is_one_with_itself_and_minus_one_with_its_mirror() -> None:
    scores = np.random.default_rng(0).normal(size=(20, 3))
    found = agreement(["a", "same", "mirror"], [np.stack([column, column * 2, -column]) for column in scores.T])
    assert found["a", "same"] == pytest.approx(1)
    assert found["a", "mirror"] == pytest.approx(-1)


def test_an_unknown_scorer_is_named(pack: ConceptPack) -> None:
    with pytest.raises(BadInput, match=r"no scorer 'gpt'\. Known are classifier, embedding, independent"):
        load_scorers(replace(pack), ["gpt"])
