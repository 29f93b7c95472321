"""Facts about what makes a concept pack usable: the built-in pack, broken in one way at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from nlabench.benchmark.concepts import NEUTRAL_PURPOSES, ConceptPack, NeutralPurpose, Purpose, Text, load_pack
from nlabench.benchmark.pack_check import (
    SAME_TEXT,
    Problem,
    _is_one_sentence,
    _leave_one_out_scores,
    check_pack,
    function_words,
)
from nlabench.benchmark.scoring.embedding import MINILM, embed

Break = Callable[[ConceptPack], ConceptPack]


@pytest.fixture(scope="module")
def core() -> ConceptPack:
    """The built-in pack, its texts embedded once (`embed` remembers them)."""
    pack = load_pack()
    check_pack(pack)
    return pack


def concept(name: str, /, **changes: str) -> Break:
    """Change fields of one concept."""
    return lambda pack: replace(
        pack, concepts=tuple(replace(c, **changes) if c.name == name else c for c in pack.concepts)
    )


def texts(name: str, purpose: Purpose, change: Callable[[tuple[Text, ...]], tuple[Text, ...]]) -> Break:
    """Change the texts of one purpose of one concept."""
    return lambda pack: replace(
        pack,
        concepts=tuple(
            replace(c, texts={**c.texts, purpose: change(c.texts[purpose])}) if c.name == name else c
            for c in pack.concepts
        ),
    )


def neutral(kind: NeutralPurpose, change: Callable[[tuple[Text, ...]], tuple[Text, ...]]) -> Break:
    """Change the neutral prompts of one purpose."""
    return lambda pack: replace(pack, neutral={**pack.neutral, kind: change(pack.neutral[kind])})


def rewrite(number: int, text: str) -> Callable[[tuple[Text, ...]], tuple[Text, ...]]:
    """Put another text in the place of one."""
    return lambda found: tuple(replace(t, text=text) if i == number else t for i, t in enumerate(found))


def each(change: Callable[[str], str], first: int | None = None) -> Callable[[tuple[Text, ...]], tuple[Text, ...]]:
    """Change every text, or the first few."""
    return lambda found: tuple(
        replace(t, text=change(t.text)) if first is None or i < first else t for i, t in enumerate(found)
    )


def without_families(pack: ConceptPack) -> ConceptPack:
    return replace(pack, concepts=tuple(replace(c, family=f"family {i % 6}") for i, c in enumerate(pack.concepts)))


def with_29_neutral_each(pack: ConceptPack) -> ConceptPack:
    return replace(pack, neutral={kind: pack.neutral[kind][:29] for kind in NEUTRAL_PURPOSES})


def same_text_for_two_purposes(pack: ConceptPack) -> ConceptPack:
    seen = pack.concepts[0].texts["direction"][3].text
    return texts("joy", "probe", rewrite(0, f"  “{seen.rstrip('.').replace(',', ' -')}!”"))(pack)


LONG_WORDS = " ".join(["antidisestablishmentarianism"] * 22) + " and the rest of it."
TAIL = ", as was said at the meeting of the group on the first day of the week by the window in the hall"

#: what is broken -> (how, where the problem is found, what is said of it)
BROKEN: dict[str, tuple[Break, str, str]] = {
    "too few concepts": (lambda pack: pack.select(39), "pack", "39 concepts"),
    "too few families": (without_families, "pack", "6 families"),
    "too few texts of a purpose": (texts("joy", "natural", lambda t: t[:7]), "joy", "7 natural texts"),
    "too few neutral prompts in all": (with_29_neutral_each, "neutral", "116 prompts in all"),
    "too few neutral prompts of a kind": (neutral("scorer", lambda t: t[:19]), "neutral/scorer", "19 prompts"),
    "a description of two sentences": (
        concept("ocean", description="The text is about the ocean. It may name the sea."), "ocean", "one sentence",
    ),
    "a description without its full stop": (
        concept("ocean", description="The text is about the ocean and the sea"), "ocean", "one sentence",
    ),
    "a name that ids cannot hold": (concept("ocean", name="sea/ocean"), "sea/ocean", "name of a concept"),
    "an opposite that is not there": (concept("ocean", opposite="land"), "ocean", "'land', which is not another"),
    "an opposite that is itself": (concept("ocean", opposite="ocean"), "ocean", "'ocean', which is not another"),
    "an opposite that is not mutual": (concept("ocean", opposite="joy"), "ocean", "own opposite is 'sadness'"),
    "a text that is too short": (
        texts("ocean", "direction", rewrite(0, "Gulls wheeled over the old harbour mouth.")),
        "ocean/direction/0", "has 7 words; 8 to 40",
    ),
    "a text that is too long": (
        texts("ocean", "direction", lambda t: rewrite(3, t[3].text + 2 * TAIL)(t)),
        "ocean/direction/3", "words; 8 to 40",
    ),
    "a validation text that is too short": (
        texts("ocean", "validation", rewrite(2, "gulls over the trawler")), "ocean/validation/2", "4 words; 5 to 30",
    ),
    "a neutral prompt that is too short": (
        neutral("scorer", rewrite(3, "A wide rubber band held it together.")), "neutral/scorer/3", "7 words; 8 to 40",
    ),
    "a text with a wild word": (
        texts("html", "direction", rewrite(0, f"Open the image at https://x.example/{'a1' * 40} for the title")),
        "html/direction/0", "wild in length",
    ),
    "a text of very long words": (
        texts("ocean", "direction", rewrite(0, LONG_WORDS)), "ocean/direction/0", "wild in length",
    ),
    "a control character": (
        texts("ocean", "direction", each(lambda t: t + "\x08", first=1)), "ocean/direction/0", r"U\+0008",
    ),
    "a mark that reverses what is shown": (
        neutral("readout", each(lambda t: "\u202e" + t, first=1)), "neutral/readout/0", r"U\+202E",
    ),
    "an invisible character in a title": (concept("ocean", title="the oc\u200bean"), "ocean", r"U\+200B"),
    "one text for two purposes": (same_text_for_two_purposes, "joy/probe/0", "same text as joy/direction/3"),
    "a paraphrase in another purpose": (
        texts("sadness", "probe", rewrite(0, (
            "Dear Ines, we are overjoyed, for the adoption is final: nobody can stop smiling, and all morning your new "
            "nephew tried out his surname on the postman, the neighbours and the parrot."
        ))),
        "sadness/probe/0", "says the same as joy/direction/4",
    ),
    "natural texts that name their concept": (
        texts("music", "natural", each(lambda t: t[:-1] + " to the music.", first=5)), "music", "5 of 8 natural texts",
    ),
    "a natural text with one function word": (
        texts("ocean", "natural", rewrite(0, (
            "A whale surfaced beside us, blew twice, dived again, and left our little rowing boat rocking gently."
        ))),
        "ocean/natural/0", "has 1 function words",
    ),
    "a probe text whose function words come first": (
        texts("ocean", "probe", rewrite(0, "By noon the whale had surfaced twice, then dived beneath our boat.")),
        "ocean/probe/0", "has 0 function words",
    ),
    "two texts that open alike": (
        texts("ocean", "scorer", lambda t: rewrite(1, " ".join(t[0].text.split()[:3]) + " and " + t[1].text)(t)),
        "ocean/scorer/1", "opens like ocean/scorer/0",
    ),
    "a first word that comes too often": (
        texts("ocean", "direction", each(lambda t: "Today " + t, first=5)), "ocean/direction", "open with 'today'",
    ),
    "readout prompts without a paired word": (
        neutral("readout", each(lambda t: t.replace(" from ", " off "))), "neutral/readout", "'from' .* 0%",
    ),
    "neutral prompts that are too short": (
        neutral("readout", each(lambda t: " ".join(t.split()[:15]).rstrip(",.;") + ".")), "neutral/readout",
        "median length of 15 words",
    ),
    "neutral prompts that end otherwise": (
        neutral("readout", each(lambda t: t.rstrip("."), first=16)), "neutral/readout", "end in . ! or ?",
    ),
    "a neutral prompt that expresses a concept": (
        neutral("readout", rewrite(0, (
            "Far below the waves a whale sang to the others in the cold water, and the tide drew weed from the reef."
        ))),
        "neutral/readout/0", "looks like 'ocean'",
    ),
}  # fmt: skip

#: Breaking these breaks others with them: half of each readout prompt holds fewer of the paired words.
SPILLS = {"neutral prompts that are too short"}


def test_built_in_pack_passes_every_check(core: ConceptPack) -> None:
    assert check_pack(core) == []


@pytest.mark.parametrize("broken", BROKEN)
def test_a_pack_broken_in_one_way_breaks_that_rule_and_no_other(core: ConceptPack, broken: str) -> None:
    how, where, what = BROKEN[broken]
    problems = check_pack(how(core))
    here = [p for p in problems if p.where == where and re.search(what, p.what)]
    assert len(here) == 1, problems
    assert here[0].fix
    assert broken in SPILLS or problems == here


def test_lengths_that_do_not_meet_are_named(core: ConceptPack) -> None:
    broken = neutral("direction", lambda t: tuple(replace(x, text=x.text[:-1] + TAIL * 2 + ".") for x in t))(core)
    assert any(p.where == "neutral/direction" and "middle 80%" in p.what for p in check_pack(broken))


def test_expected_concept_texts_are_recognised_by_the_classifier_that_guards_the_neutral_prompts(
    core: ConceptPack,
) -> None:
    shown = [t.text for c in core.concepts for p in ("direction", "probe", "natural", "scorer") for t in c.texts[p]]
    prompts = [t.text for kind in NEUTRAL_PURPOSES for t in core.neutral[kind]]
    labels = np.repeat(np.arange(len(core.concepts) + 1), [40] * len(core.concepts) + [len(prompts)])
    scores = _leave_one_out_scores(embed(MINILM, shown + prompts), labels)
    assert (scores[: len(shown)].argmax(1) != len(core.concepts)).mean() > 0.93


def test_leave_one_out_scores_are_those_of_a_fit_without_the_text() -> None:
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(30, 5)), np.arange(30) % 3
    inputs, targets = np.hstack([vectors, np.ones((30, 1))]), np.eye(3)[labels]
    penalty = np.diag([1.0] * 5 + [0.0])
    for left_out in (0, 17):
        kept = np.arange(30) != left_out
        fit = np.linalg.solve(inputs[kept].T @ inputs[kept] + penalty, inputs[kept].T @ targets[kept])
        assert _leave_one_out_scores(vectors, labels)[left_out] == pytest.approx(inputs[left_out] @ fit)


def test_a_close_paraphrase_lies_above_the_threshold_and_another_text_of_the_concept_below() -> None:
    told, again, other = embed(
        MINILM,
        [
            "There are twelve hooks in the hallway, nine of which have coats hanging on them.",
            "In the hall there are a dozen hooks, and coats hang on nine of them.",
            "A wooden chair stood against the wall, a little to the left of the radiator.",
        ],
    )
    assert told @ other < SAME_TEXT < told @ again


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Out of the house they went", []),  # within the first three words
        ("We walked back home With The Others", []),  # a capital is another token
        ("They have no idea what it was for", []),  # the last token is a readout of the kind `final`
        ("We sat down (in haste) on it", ["on"]),  # behind a bracket a word starts no token
        ("We went home\nwith bread and, of course, milk", ["and", "of"]),  # only a space marks the start of a word
    ],
)
def test_function_words_are_those_that_a_tokenizer_would_offer(text: str, found: list[str]) -> None:
    assert function_words(text) == found


@pytest.mark.parametrize(
    ("description", "is_one"),
    [
        ("The text is about the ocean.", True),
        ("Is it about 3.5 metres of rope, e.g. for a boat?", True),
        ("The text is about the ocean. It names the sea.", False),
        ("The text is about the ocean", False),
        ("", False),
    ],
)
def test_a_description_is_one_sentence(description: str, is_one: bool) -> None:
    assert _is_one_sentence(description) is is_one


def test_a_problem_reads_as_where_what_and_fix() -> None:
    assert str(Problem("ocean", "has 7 natural texts.", "Add texts.")) == "ocean: has 7 natural texts. Add texts."
