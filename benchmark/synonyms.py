"""A word's synonym, from WordNet 3.0 (Fellbaum, ed., 1998; Princeton University 2006), in the word's own form.

nltk reads WordNet; lemminflect, with the words of the NIH's SPECIALIST lexicon, takes a word to its lemma and a synonym
to the word's form. Neither is imported, and nothing is fetched, before the first word is asked for.
"""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import Any

from .assets import fetch_asset

# lemminflect's parts of speech: WordNet's letter for each, and the tags of its forms.
_PARTS = {
    "NOUN": ("n", ("NN", "NNS")),
    "VERB": ("v", ("VB", "VBP", "VBZ", "VBD", "VBN", "VBG")),
    "ADJ": ("a", ("JJ", "JJR", "JJS")),
    "ADV": ("r", ("RB", "RBR", "RBS")),
}
_UNINFLECTED = ("NN", "VB", "VBP", "JJ", "RB")


@cache
def find_synonym(word: str) -> str | None:
    """A synonym of a lower-case English word in the same form (*movies*: *films*), or None.

    The sense is the one that WordNet's annotators tagged most often among the first senses of the word's parts of
    speech, and the synonym is the first other single word in that sense's set. There is none for function words, for
    numbers, for what WordNet knows as a name first (*japan*), and for words that the lexicon lacks.

    Raises:
        BadInput: WordNet cannot be fetched.
    """
    import lemminflect

    lemmas: dict[str, tuple[str, ...]] = lemminflect.getAllLemmas(word)
    if not _function_words().isdisjoint({word, *(lemma for spellings in lemmas.values() for lemma in spellings)}):
        return None
    senses = [
        (part, lemma, synsets[0])
        for part, (letter, _) in _PARTS.items()
        for lemma in lemmas.get(part, ())
        if (synsets := _wordnet().synsets(lemma, letter))
    ]
    if not senses:
        return None
    part, lemma, synset = max(senses, key=lambda sense: _times_tagged(sense[1], sense[2]))
    names: list[str] = synset.lemma_names()
    if lemma not in names or any(name[0].isdigit() for name in names):
        return None
    others = (name for name in names if name != lemma and name.isalpha() and name.islower())
    tags = _tags(word, lemma, part)
    return next((form for other in others if (form := _inflect(other, tags)) and form != word), None)


@cache
def is_english(word: str) -> bool:
    """Whether a lower-case word is a function word of English or in the lexicon; names mostly are not."""
    import lemminflect

    return word in _function_words() or bool(lemminflect.getAllLemmas(word))


def _function_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return ENGLISH_STOP_WORDS  # type: ignore[no-any-return]


def _times_tagged(lemma: str, synset: Any) -> int:
    return max((sense.count() for sense in synset.lemmas() if sense.name().lower() == lemma), default=0)


def _tags(word: str, lemma: str, part: str) -> tuple[str, ...]:
    """What the word can be as a form of its lemma: *fled* is a past (VBD) and a participle (VBN)."""
    import lemminflect

    _, tags = _PARTS[part]
    if word == lemma and part != "VERB":
        return tags[:1]  # the lexicon gives a mass noun as its own plural too
    forms = lemminflect.getAllInflections(lemma, part)
    return tuple(tag for tag in tags if word in forms.get(tag, ())) or tags[:1]


def _inflect(lemma: str, tags: tuple[str, ...]) -> str | None:
    """The form of a lemma that is right for every one of the tags, if there is one."""
    import lemminflect

    # Only what the lexicon has: for other words lemminflect would unpickle a model and guess.
    forms: list[tuple[str, ...]] = [
        (lemma,) if tag in _UNINFLECTED else lemminflect.getInflection(lemma, tag, inflect_oov=False) for tag in tags
    ]
    return next((form for form in forms[0] if all(form in others for others in forms)), None)


@cache
def _wordnet() -> Any:
    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class WordNet(WordNetCorpusReader):  # type: ignore[misc]
        """nltk's reader, of a folder that has the database and nothing beside it."""

        def open(self, file: str) -> Any:
            if file.endswith(".exc"):
                return io.StringIO()  # the irregular forms, which lemminflect knows
            # What cntlist.rev counts is the last column of index.sense as well, sorted by the same keys.
            return super().open("index.sense" if file == "cntlist.rev" else file)

        def map_wn(self, version: str = "wordnet") -> None:
            """No map to the WordNet of nltk's own downloads, which need not be here."""

    home = str(fetch_asset("wordnet-3.0"))
    nltk.data.path.append(home)  # nltk opens files in registered folders only
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The multilingual functions")
        return WordNet(home, None)
