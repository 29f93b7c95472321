"""Facts about packs made of one labelled set: the classes are the concepts, and no text serves two purposes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from nlabench.benchmark.concepts import (
    NEUTRAL_PURPOSES,
    PURPOSES,
    ConceptPack,
    load_pack,
    write_pack,
)
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.labelled_pack import LONGEST, SHORTEST, _first_sentences, _opening
from nlabench.benchmark.pack_check import function_words
from nlabench.benchmark.sae_probes import load_labelled_texts
from nlabench.benchmark.scoring.base import load_scorers
from nlabench.benchmark.scoring.validation import validate_scorer

SOURCE = "sae-probes:97_news_class"


@pytest.fixture(scope="module")
def pack() -> ConceptPack:
    return load_pack(SOURCE)


def test_the_classes_are_the_concepts_and_their_names_the_descriptions(pack: ConceptPack) -> None:
    assert (pack.name, pack.names) == (SOURCE, ["Entertainment", "Politics", "Sport", "Technology"])
    assert pack.descriptions[2] == "The text is about Sport."
    assert set(pack.families) == {"news_class"}


def test_no_text_serves_two_purposes_or_opens_like_one_that_does(pack: ConceptPack) -> None:
    texts = [t.text for c in pack.concepts for p in PURPOSES for t in c.texts[p]]
    assert Counter(map(_opening, texts)).most_common(1)[0][1] == 1
    assert len({t.id for c in pack.concepts for p in PURPOSES for t in c.texts[p]}) == len(texts)
    for concept in pack.concepts:
        assert [len(concept.texts[p]) for p in PURPOSES] == [32, 16, 16, 16, 8]


def test_every_text_begins_a_text_of_its_class(pack: ConceptPack) -> None:
    table = load_labelled_texts("97_news_class")
    for concept in pack.concepts:
        own = [" ".join(prompt.split()) for prompt in table["prompt"][table["target"] == concept.name]]
        for purpose in PURPOSES:
            assert all(any(prompt.startswith(t.text) for prompt in own) for t in concept.texts[purpose])


def test_every_text_is_as_long_as_the_built_in_packs_and_can_be_read(pack: ConceptPack) -> None:
    texts = [t.text for c in pack.concepts for p in PURPOSES for t in c.texts[p]]
    assert all(SHORTEST <= len(text.split()) <= LONGEST for text in texts)
    assert all(len(function_words(text)) >= 2 for text in texts)


def test_neutral_prompts_are_the_built_in_packs_for_the_same_purposes(pack: ConceptPack) -> None:
    core = load_pack()
    for purpose in NEUTRAL_PURPOSES:
        assert [t.text for t in pack.neutral[purpose]] == [t.text for t in core.neutral[purpose]]


def test_the_split_is_the_same_every_time(pack: ConceptPack) -> None:
    assert load_pack(SOURCE) == pack


def test_scorers_are_tested_on_held_out_texts_and_it_is_said_that_none_names_a_concept(
    pack: ConceptPack, tmp_path: Path
) -> None:
    validity = validate_scorer(load_scorers(pack, ["classifier"])[0], pack)
    assert not validity.forms_marked
    assert (validity.n_naming, validity.naming) == (32, validity.being)
    write_pack(pack, tmp_path / "pack.jsonl")
    again = load_pack(tmp_path / "pack.jsonl")
    assert replace(again, name=SOURCE) == pack
    core = load_pack().select(2)
    assert validate_scorer(load_scorers(core, ["classifier"])[0], core).forms_marked


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("news_class", "no labelled set 'news_class'.* Near it are 97_news_class"),
        ("161_agnews_0", "labels of sae-probes:161_agnews_0 are 0, 1: they name nothing"),
        ("21_headline_istrump", "are False, True: they name nothing"),
        ("37_arith_mc", "are A, B, C, D: they name nothing"),
        ("8_nyc_lat", "are 40.49908960605143, .*, …: they name nothing"),
        ("108_athlete_sport", "class 'baseball' of sae-probes:108_athlete_sport has 0 texts .* needs 44"),
        ("88_glue_mnli", "concept named 'neutral'"),
    ],
)
def test_a_set_that_makes_no_pack_is_refused_with_the_reason(name: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        load_pack(f"sae-probes:{name}")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One two three four. Five six seven eight.", "One two three four. Five six seven eight."),
        ("a b c d e f g h\n i j. " + "K l " * 20, "a b c d e f g h i j."),
        ("One two three, four five six seven eight nine", "One two three, four five six seven eight nine"),
        ("He met Mr. Bean and J. Smith of St. Ives. " + "X " * 30, "He met Mr. Bean and J. Smith of St. Ives."),
        ('She said: "We are all of us late." Then ' + "x " * 30, 'She said: "We are all of us late."'),
        ("Too short. " + "X " * 30, ""),
        ("word " * 31, ""),
        ("Army #39;s hideouts were found by the police at night", ""),
        ("All of it is at https://example.org for the rest of you", ""),
    ],
)  # fmt: skip
def test_a_text_is_cut_to_its_first_whole_sentences(text: str, kept: str) -> None:
    assert _first_sentences(text) == kept
