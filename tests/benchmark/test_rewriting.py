"""Facts about the two rewrites: one takes the quotations out, the other keeps what is said and changes the words."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nlabench.benchmark.assets import fetch_asset, file_sha256
from nlabench.benchmark.rewriting import paraphrase, strip_quotes
from nlabench.benchmark.synonyms import find_synonym

# Written as verbalizers write: what kind of text, what it is about, and its last words.
SAID = 'News about a movie: "the reporters rapidly walked to the shops in Paris with 1,200 dollars and'


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ('Story about money: "I had to pay for my food and"', "Story about money"),
        (
            "Final token “problematic” ends a clause (“avoiding the”), so a noun.",
            "Final token ends a clause, so a noun.",
        ),
        ("A line of «ancien régime» prose.", "A line of prose."),
        ('Words such as "a," "b," and "c" follow.', "Words such as and follow."),
        ("The word 'bank' ends it, after 'I don't know'.", "The word ends it, after."),
        ("The token ‘bank’ and ‘it’s late’, perhaps.", "The token and, perhaps."),
        ('A list about james: "Jason Jones, "The Unauthorized Jameson,""', "A list about james"),
        ('First: "one".\nSecond: "two", then more.', "First.\nSecond, then more."),
        ('"All of it."', ""),
    ],
)
def test_what_is_quoted_goes_and_leaves_no_stray_punctuation(text: str, rest: str) -> None:
    assert strip_quotes(text) == rest


@pytest.mark.parametrize(
    "text",
    [
        "It doesn't say whose: the dogs' bowl or Jordan's.",
        "'Tis the season, and the '90s were the boys' years.",
        'Text about the accused: "the accused, who was accused of the',  # cut at the token limit
        "“The sentence opens and",
        'A board of 5" by 7" nails',
        "",
        "Two  spaces , and nothing quoted :",
    ],
)
def test_apostrophes_and_halves_of_quotations_stay(text: str) -> None:
    assert strip_quotes(text) == text


QUOTED = st.text(alphabet="ab'\"“”«»‘’ ,.:;()[]\n5", max_size=40)


@given(st.one_of(QUOTED, st.text(max_size=40)))
@example("'a' 'b' '")
@example('a "b "c" d" e"')
def test_a_text_without_quotations_has_none_to_lose(text: str) -> None:
    rest = strip_quotes(text)
    assert len(rest) <= len(text)
    assert strip_quotes(rest) == rest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SAID, 'Intelligence about a film: "the newsmen quickly walked to the stores in Paris with 1,200 dollars and'),
        ("Stories of bigger cars.", "Narratives of larger autos."),
        ("The reporter's car", "The newsman's auto"),
        ("- Movies by (Movie) men. “Movies” of Movies", "- Films by (Movie) men. “Films” of Movies"),
        ("She wrote two hundred movies in 1999.", "She composed two hundred films in 1999."),
        ("She had fled", "She had fled"),  # "flew" is no participle
    ],
)
def test_content_words_become_synonyms_in_the_same_form(text: str, said: str) -> None:
    assert paraphrase(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "He is not what they would have been, although we will.",
        "Mr Story of Movie Street, Paris",  # capitals within a sentence are names
        "japan, japan, jordan, 17, seven and seventy",
        "le chat est sur la table de la cuisine",
        "Die Reporter waren schneller als der Film.",
        "see movie_reporter, /home/movie/car.py, @reporter and story(",
        "МОВА, 物語, ὁδός",
    ],
)
def test_names_numbers_function_words_and_other_languages_stay(text: str) -> None:
    assert paraphrase(text) == text


def test_a_foreign_quotation_stays_within_an_english_text() -> None:
    text = 'French story about a car: "le chat est sur la table de la cuisine"'
    assert paraphrase(text) == 'French narrative about a auto: "le chat est sur la table de la cuisine"'


def test_the_sense_is_the_one_most_often_tagged() -> None:
    # As a noun, which WordNet lists first, "say" is the chance to speak and has no synonym.
    assert find_synonym("said") == "stated"
    assert find_synonym("car") == "auto"  # "railcar" is the second sense


def test_a_paraphrase_is_the_same_in_every_process() -> None:
    code = f"from nlabench.benchmark.rewriting import paraphrase; print(paraphrase({SAID!r}))"
    environment = {**os.environ, "PYTHONHASHSEED": "17"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == paraphrase(SAID) != SAID
    assert done.stderr == ""


def test_nothing_heavy_is_imported_before_the_first_word() -> None:
    code = (
        "import sys, nlabench.benchmark.rewriting as r; r.strip_quotes('\"a\" b'); "
        "print(sorted({'nltk', 'lemminflect', 'sklearn', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_pieces_of_wordnet_are_princetons_file() -> None:
    home = fetch_asset("wordnet-3.0")
    nouns = home / "data.noun"
    assert nouns.stat().st_size == 15_300_280
    assert file_sha256(nouns) == "489f145e0f68877c0be5bd0eb4117adaaac52f38f6204eb8d85dbe2158b614cc"
    assert "Princeton University" in (home / "LICENSE.txt").read_text()
