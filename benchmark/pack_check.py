"""What makes a concept pack usable, checked: `nlabench concepts check`.

`load_pack` refuses what a run cannot use at all. Here is what a *valid result* asks of a pack: enough concepts for
intervals, texts that serve one purpose each, readouts that exist, and neutral prompts that differ from the concept
texts in what they express and in nothing else.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .concepts import NEUTRAL_PURPOSES, PURPOSES, TEXTS_PER_PURPOSE, ConceptPack, NeutralPurpose, Purpose, Text
from .reading import FIRST_FUNCTION_INDEX, FUNCTION_WORDS
from .scoring.embedding import MINILM, embed

FEWEST_CONCEPTS = 40
FEWEST_FAMILIES = 7
FEWEST_NEUTRAL_IN_ALL = 120
FEWEST_NEUTRAL_PER_PURPOSE = 20

#: Words, split at white space. Validation texts are fragments, as verbalizers write them.
WORDS = (8, 40)
WORDS_OF_VALIDATION = (5, 30)

#: A text of forty words stays far below the first; the second catches base64, links and texts without spaces.
MOST_CHARACTERS = 600
LONGEST_WORD = 80

#: Two texts with this cosine (MiniLM) say the same. On the built-in pack the closest two of 3 million pairs lie just
#: below it; of 13 paraphrases written to test it, 11 lie above.
SAME_TEXT = 0.70

#: No first word opens more than this share of a set of texts (two are always fine).
MOST_SHARED_OPENINGS = 0.25

#: Readouts of the kind `function` that a text must offer.
FEWEST_FUNCTION_WORDS: dict[Purpose, int] = {"natural": 2, "probe": 1}

#: The words at which natural and steered readouts are paired, and the share of *readout* prompts that must hold each.
PAIRED_WORDS = ("the", "and", "of", "in", "with", "from")
READOUT_COVERAGE = 1 / 3

#: The concept texts that each kind of neutral prompt is matched to.
COUNTERPART: dict[NeutralPurpose, Purpose] = {
    "direction": "direction",
    "readout": "natural",
    "scorer": "scorer",
    "reference": "scorer",
}
MEDIAN_LENGTH_TOLERANCE = 0.30
ENDING_TOLERANCE = 0.15

#: Ridge penalty of the classifier that looks for concepts in neutral prompts. On the built-in pack, leaving one text
#: out, it takes 95% of the concept texts for a concept and no neutral prompt.
NONE_CLASSIFIER_PENALTY = 1.0

#: Invisible, or able to reorder what is shown: zero-width and bidirectional marks, and the replacement character.
UNSAFE_CHARACTERS = frozenset(
    "\u200b\u2060\ufeff\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufffd"
)


@dataclass(frozen=True)
class Problem:
    """Where a pack breaks a rule, what was found and expected, and what to do about it."""

    where: str  # the id of a text, the name of a concept, a kind of neutral prompt, or "pack"
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} {self.fix}"


def check_pack(pack: ConceptPack, embedder: str = MINILM) -> list[Problem]:
    """Everything that keeps a pack from a valid result; empty for a good pack.

    embedder: for near-duplicates and for concepts in neutral prompts; every text is embedded once.

    Raises:
        BadInput: the embedder cannot be loaded.
    """
    texts = _all_texts(pack)
    vectors = embed(embedder, [text.text for text in texts])
    return [
        *_check_sizes(pack),
        *_check_concepts(pack),
        *_check_form(pack),
        *_check_duplicates(texts, vectors),
        *_check_name_leaks(pack),
        *_check_function_words(pack),
        *_check_openings(pack),
        *_check_neutral_match(pack),
        *_check_neutral_content(pack, embedder),
    ]


def _all_texts(pack: ConceptPack) -> list[Text]:
    of_concepts = [text for concept in pack.concepts for purpose in PURPOSES for text in concept.texts[purpose]]
    return of_concepts + [text for kind in NEUTRAL_PURPOSES for text in pack.neutral[kind]]


def _check_sizes(pack: ConceptPack) -> Iterator[Problem]:
    families = len(set(pack.families))
    if len(pack.concepts) < FEWEST_CONCEPTS:
        yield Problem(
            "pack",
            f"has {len(pack.concepts)} concepts; useful intervals need at least {FEWEST_CONCEPTS}.",
            "Add concepts.",
        )
    if families < FEWEST_FAMILIES:
        yield Problem(
            "pack", f"has {families} families of concepts; at least {FEWEST_FAMILIES} are needed.", "Add families."
        )
    for concept in pack.concepts:
        for purpose, fewest in TEXTS_PER_PURPOSE.items():
            if len(concept.texts[purpose]) < fewest:
                found = len(concept.texts[purpose])
                yield Problem(concept.name, f"has {found} {purpose} texts; at least {fewest} are needed.", "Add texts.")
    for kind in NEUTRAL_PURPOSES:
        if len(pack.neutral[kind]) < FEWEST_NEUTRAL_PER_PURPOSE:
            yield Problem(
                f"neutral/{kind}",
                f"has {len(pack.neutral[kind])} prompts; at least {FEWEST_NEUTRAL_PER_PURPOSE} are needed.",
                "Add ordinary sentences that express no concept of the pack.",
            )
    in_all = sum(map(len, pack.neutral.values()))
    if in_all < FEWEST_NEUTRAL_IN_ALL:
        yield Problem(
            "neutral",
            f"has {in_all} prompts in all; at least {FEWEST_NEUTRAL_IN_ALL} are needed.",
            "Add ordinary sentences that express no concept of the pack.",
        )


def _check_concepts(pack: ConceptPack) -> Iterator[Problem]:
    by_name = {concept.name: concept for concept in pack.concepts}
    for concept in pack.concepts:
        if concept.name == "neutral" or "/" in concept.name:
            yield Problem(
                concept.name,
                "cannot be the name of a concept: ids of texts read concept/purpose/number or neutral/purpose/number.",
                "Choose another name.",
            )
        if not _is_one_sentence(concept.description):
            yield Problem(
                concept.name,
                f"has the description {concept.description[:120]!r}, which is not one sentence with its full stop.",
                "Write one sentence that a reader can hold against a text.",
            )
        if concept.opposite is None:
            continue
        if concept.opposite == concept.name or concept.opposite not in by_name:
            yield Problem(
                concept.name,
                f"has the opposite {concept.opposite!r}, which is not another concept of the pack.",
                "Name a concept of the pack, or null.",
            )
        elif by_name[concept.opposite].opposite != concept.name:
            yield Problem(
                concept.name,
                f"has the opposite {concept.opposite!r}, whose own opposite is {by_name[concept.opposite].opposite!r}.",
                f"Opposites are mutual: give {concept.opposite!r} the opposite {concept.name!r}, or drop both.",
            )


def _is_one_sentence(description: str) -> bool:
    return description.rstrip()[-1:] in (".", "!", "?") and not re.search(
        r"[.!?][\"'”’)]*\s+[\"'“‘(]*[A-ZÀ-ÖØ-Þ]", description
    )


def _check_form(pack: ConceptPack) -> Iterator[Problem]:
    for concept in pack.concepts:
        yield from _check_characters(concept.name, f"{concept.name}\n{concept.title}\n{concept.description}")
        for purpose in PURPOSES:
            for text in concept.texts[purpose]:
                yield from _check_length(text, WORDS_OF_VALIDATION if purpose == "validation" else WORDS)
                yield from _check_characters(text.id, text.text)
    for kind in NEUTRAL_PURPOSES:
        for text in pack.neutral[kind]:
            yield from _check_length(text, WORDS)
            yield from _check_characters(text.id, text.text)


def _check_length(text: Text, limits: tuple[int, int]) -> Iterator[Problem]:
    words = text.text.split()
    longest = max(map(len, words), default=0)
    if not limits[0] <= len(words) <= limits[1]:
        yield Problem(
            text.id,
            f"has {len(words)} words; {limits[0]} to {limits[1]} are expected.",
            "Shorten or lengthen it." if words else "Write a text.",
        )
    if len(text.text) > MOST_CHARACTERS or longest > LONGEST_WORD:
        yield Problem(
            text.id,
            f"is wild in length: {len(text.text)} characters (at most {MOST_CHARACTERS}), the longest run without a "
            f"space {longest} (at most {LONGEST_WORD}).",
            "Shorten it.",
        )


def _check_characters(where: str, text: str) -> Iterator[Problem]:
    unsafe = sorted(
        {
            f"U+{ord(char):04X}"
            for char in text
            if char in UNSAFE_CHARACTERS
            or (unicodedata.category(char) in ("Cc", "Cs", "Co", "Cn") and char not in "\n\t")
        }
    )
    if unsafe:
        yield Problem(where, f"holds control or invisible characters ({', '.join(unsafe)}).", "Remove them.")


def _is_unsafe(char: str) -> bool:
    """A control character, half of a surrogate pair, or a code point without a character."""
    return char in UNSAFE_CHARACTERS or (char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cs", "Co", "Cn"))


def _check_duplicates(texts: Sequence[Text], vectors: NDArray[np.float64]) -> Iterator[Problem]:
    """vectors: [n_texts, width], unit. Exact matches leave out case, spacing and punctuation."""
    plain = [" ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", t.text).casefold())) or t.text for t in texts]
    first_with = {normalized: i for i, normalized in reversed(list(enumerate(plain)))}
    for i, text in enumerate(texts):
        if first_with[plain[i]] != i:
            yield Problem(
                text.id,
                f"is the same text as {texts[first_with[plain[i]]].id}.",
                "A text serves one purpose, once: replace one of them.",
            )
    for i, j in _close_pairs(vectors):
        if plain[i] != plain[j]:
            yield Problem(
                texts[j].id,
                f"says the same as {texts[i].id} (cosine {vectors[i] @ vectors[j]:.2f}; below {SAME_TEXT:.2f} is "
                f"expected): {texts[j].text[:80]!r} and {texts[i].text[:80]!r}.",
                "Replace one of them: what one purpose has seen must not help another.",
            )


def _close_pairs(vectors: NDArray[np.float64], rows_at_once: int = 2048) -> Iterator[tuple[int, int]]:
    for start in range(0, len(vectors), rows_at_once):
        cosines = vectors[start : start + rows_at_once] @ vectors.T
        for row, column in np.argwhere(cosines >= SAME_TEXT).tolist():
            if start + row < column:
                yield start + row, column


def _check_name_leaks(pack: ConceptPack) -> Iterator[Problem]:
    for concept in pack.concepts:
        named = re.findall(r"[^\W_]+", f"{concept.name} {concept.title}".casefold())
        own = {word for word in named if len(word) > 1 and word not in FUNCTION_WORDS | {"an"}}
        texts = concept.texts["natural"]
        leaking = [t for t in texts if any(_is_form_of(w, o) for w in _words(t.text) for o in own)]
        if 2 * len(leaking) > len(texts):
            yield Problem(
                concept.name,
                f"has {len(leaking)} of {len(texts)} natural texts with a word of its name ({', '.join(sorted(own))}), "
                f"for instance {leaking[0].id}; half of them at least must do without.",
                "Reword them: a reader of the last tokens would be told the answer.",
            )


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _is_form_of(word: str, other: str) -> bool:
    """Equal, or one begins with the other and four letters: cook, cooking; ocean, oceans."""
    short, long = sorted((word, other), key=len)
    return word == other or (len(short) >= 4 and long.startswith(short))


def _check_function_words(pack: ConceptPack) -> Iterator[Problem]:
    for concept in pack.concepts:
        for purpose, fewest in FEWEST_FUNCTION_WORDS.items():
            for text in concept.texts[purpose]:
                if len(found := function_words(text.text)) < fewest:
                    yield Problem(
                        text.id,
                        f"has {len(found)} function words past its third word; a {purpose} text needs at least "
                        f"{fewest} (of {', '.join(sorted(FUNCTION_WORDS))}), in lower case and not at its end.",
                        "Reword it, or it offers no readout that says nothing by itself.",
                    )
    readout = [set(function_words(text.text)) for text in pack.neutral["readout"]]
    for word in PAIRED_WORDS:
        share = sum(word in words for words in readout) / max(len(readout), 1)
        if share < READOUT_COVERAGE:
            yield Problem(
                "neutral/readout",
                f"holds the function word {word!r} past the third word in {share:.0%} of its prompts; at least "
                f"{READOUT_COVERAGE:.0%} are needed.",
                "Reword some: natural and steered readouts are paired at the same word.",
            )


def function_words(text: str) -> list[str]:
    """Words that are readouts of the kind `function` for any tokenizer: behind a space, past the third word."""
    return [
        match[0]
        for match in re.finditer(r"(?<= )[a-z]+(?!\w)", text)
        if match[0] in FUNCTION_WORDS
        and len(text[: match.start()].split()) >= FIRST_FUNCTION_INDEX
        and match.end() < len(text.rstrip())
    ]


def _check_openings(pack: ConceptPack) -> Iterator[Problem]:
    for concept in pack.concepts:
        for purpose in PURPOSES:
            yield from _check_openings_of(f"{concept.name}/{purpose}", concept.texts[purpose])
    for kind in NEUTRAL_PURPOSES:
        yield from _check_openings_of(f"neutral/{kind}", pack.neutral[kind])


def _check_openings_of(where: str, texts: Sequence[Text]) -> Iterator[Problem]:
    openings = [tuple(word.strip(".,;:!?\"'“”‘’()[]").casefold() for word in t.text.split()[:3]) for t in texts]
    for i, opening in enumerate(openings):
        if opening in openings[:i]:
            yield Problem(
                texts[i].id,
                f"opens like {texts[openings.index(opening)].id}: {' '.join(opening)!r}.",
                "Open one of them with other words.",
            )
    for word, count in Counter(opening[0] for opening in openings if opening).most_common(1):
        if count > max(2, MOST_SHARED_OPENINGS * len(texts)):
            yield Problem(
                where,
                f"has {count} of {len(texts)} texts that open with {word!r}; at most {MOST_SHARED_OPENINGS:.0%} may.",
                "Vary the openings.",
            )


def _check_neutral_match(pack: ConceptPack) -> Iterator[Problem]:
    """Neutral prompts differ from the concept texts in length or in how they end: then a direction shows that."""
    for kind, purpose in COUNTERPART.items():
        neutral = [text.text for text in pack.neutral[kind]]
        of_concepts = [text.text for concept in pack.concepts for text in concept.texts[purpose]]
        if not neutral or not of_concepts:
            continue
        low, median, high = np.percentile([len(text.split()) for text in neutral], (10, 50, 90))
        other_low, other_median, other_high = np.percentile([len(text.split()) for text in of_concepts], (10, 50, 90))
        if abs(median / other_median - 1) > MEDIAN_LENGTH_TOLERANCE:
            yield Problem(
                f"neutral/{kind}",
                f"has a median length of {median:.0f} words, the {purpose} texts of the concepts {other_median:.0f}; "
                f"within {MEDIAN_LENGTH_TOLERANCE:.0%} is expected.",
                "Lengthen some prompts." if median < other_median else "Shorten some prompts.",
            )
        if low > other_high or high < other_low:
            yield Problem(
                f"neutral/{kind}",
                f"has prompts of {low:.0f} to {high:.0f} words (the middle 80%), which does not meet the {purpose} "
                f"texts' {other_low:.0f} to {other_high:.0f}.",
                "Match the lengths.",
            )
        ended, other_ended = _share_ended(neutral), _share_ended(of_concepts)
        if abs(ended - other_ended) > ENDING_TOLERANCE:
            yield Problem(
                f"neutral/{kind}",
                f"has {ended:.0%} prompts that end in . ! or ?, the {purpose} texts of the concepts {other_ended:.0%}; "
                f"within {100 * ENDING_TOLERANCE:.0f} points is expected.",
                "End some as the concept texts end.",
            )


def _share_ended(texts: Sequence[str]) -> float:
    return sum(text.rstrip()[-1:] in (".", "!", "?") for text in texts) / len(texts)


def _check_neutral_content(pack: ConceptPack, embedder: str) -> Iterator[Problem]:
    """A prompt expresses a concept where a classifier fitted on all texts but this one prefers a concept to *none*."""
    purposes: tuple[Purpose, ...] = ("direction", "probe", "natural", "scorer")
    labelled = [(t.text, c) for c, concept in enumerate(pack.concepts) for p in purposes for t in concept.texts[p]]
    neutral = [text for kind in NEUTRAL_PURPOSES for text in pack.neutral[kind]]
    none = len(pack.concepts)
    labels = np.array([label for _, label in labelled] + [none] * len(neutral))
    vectors = embed(embedder, [text for text, _ in labelled] + [text.text for text in neutral])
    scores = _leave_one_out_scores(vectors, labels)[len(labelled) :]
    for text, row in zip(neutral, scores, strict=True):
        if (best := int(row.argmax())) != none:
            yield Problem(
                text.id,
                f"looks like {pack.concepts[best].name!r}: a classifier that has not seen it scores that concept "
                f"{row[best]:.2f} and none {row[none]:.2f}: {text.text[:80]!r}.",
                "Reword or replace it: a neutral prompt expresses no concept of the pack.",
            )


def _leave_one_out_scores(vectors: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Scores [n_texts, n_classes] of a ridge classifier (with an intercept) that did not see the text it scores.

    In closed form: the residual of the full fit over 1 - leverage (the PRESS residual; Allen 1974).
    """
    targets = np.eye(int(labels.max()) + 1)[labels]
    inputs = np.hstack([vectors, np.ones((len(vectors), 1))])
    penalty = np.diag([NONE_CLASSIFIER_PENALTY] * vectors.shape[1] + [0.0])
    weights = np.linalg.solve(inputs.T @ inputs + penalty, inputs.T)  # [width + 1, n_texts]
    leverage = np.einsum("ij,ji->i", inputs, weights)[:, None]
    return np.asarray((inputs @ (weights @ targets) - leverage * targets) / (1 - leverage))
