"""Two rewrites of a verbalizer's text, as controls of reconstruction: is it the words, or what they say?

A reconstructor that finds the vector again in a text may have read its meaning, or only the prompt's own words, which
verbalizers like to quote. Without the quotations the wording is gone; in other words the meaning stays and the wording
goes. Both rewrites are fixed functions of the text.
"""

from __future__ import annotations

import re

from .synonyms import find_synonym, is_english

_DOUBLE = re.compile(r'“[^“”]*”|«[^«»]*»|(?<!\w)"[^"]*"(?!\w)')
# An apostrophe inside is followed by a letter (don't). 'tis, 'em and '90s open no quotation.
_SINGLE = re.compile(
    r"(?<![^\s(\[])(?:'(?!\d|(?:tis|twas|em|til|cause|n|bout)\b)(?:[^']|(?<=\w)'(?=\w))*'|‘(?:[^‘’]|(?<=\w)’(?=\w))*’)"
    r"(?=[\s.,;:!?)\]]|$)"
)
_LEFT_OVER = (
    (re.compile(r"\(\s*\)|\[\s*\]"), ""),
    (re.compile(r"[ \t]{2,}"), " "),
    (re.compile(r"[ \t]+(?=[,.;:!?)\]\n])|(?<=[(\[])[ \t]+"), ""),
    (re.compile(r"[,;:]+\s*(?=[,.;:!?)\]])"), ""),  # what stood before a quotation, with what stood behind it
    (re.compile(r"^[,.;:!?]+(?!\S)[ \t]*", re.MULTILINE), ""),
    (re.compile(r"[\s,;:]+\Z|\A\s+"), ""),
)

_QUOTES = '"“”«»'
_STRETCH = re.compile(rf"(?:[^{_QUOTES}\n.!?]|[.!?](?!\s))+")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
# A word by itself: no part of a number, a name such as remove_pilot, a path or a call. A possessive's 's stays.
_WORD = re.compile(r"(?<!\w)(?<!\w['’.-])(?<![/\\@#$%&])[A-Za-z]{3,}(?:(?=['’]s\b)|(?![-'’.]?\w)(?![/\\@=(]))")


def strip_quotes(text: str) -> str:
    """The text without what it quotes, and without the spaces and the punctuation that this leaves behind.

    Quotations stand between double quotes (" “ ” « ») or between single ones that cannot be apostrophes: the first
    after a space, the last before a space or punctuation. A quote without its other half stays. A text that quotes
    nothing comes back as it is; one that is all quotation comes back empty.
    """
    # Innermost first; what held a quotation may be one itself.
    while (rest := _SINGLE.sub("", _DOUBLE.sub("", text))) != text:
        text = rest
        for pattern, kept in _LEFT_OVER:
            text = pattern.sub(kept, text)
    return text


def paraphrase(text: str) -> str:
    """The text with a synonym in place of every content word that has one (`find_synonym`), quotations included.

    Function words, numbers, names (capitals within a sentence) and stretches that are not English stay: those with
    no more than half of their different words in the lexicon. An article is not made to agree with what follows it.

    Raises:
        BadInput: WordNet is not in the cache and cannot be fetched.
    """
    return _STRETCH.sub(_paraphrase_stretch, text)


def _paraphrase_stretch(match: re.Match[str]) -> str:
    stretch = match[0]
    words = {word.lower() for word in _LETTERS.findall(stretch)}
    if 2 * sum(map(is_english, words)) <= len(words):
        return stretch
    before = match.string[: match.start()][-1:]
    # A stretch goes on with a sentence only behind a quotation, where it begins with a space or with punctuation.
    opens = not before or before not in _QUOTES or stretch[0].isalpha()
    return _WORD.sub(lambda word: _replace(word, opens and not _LETTERS.search(stretch, 0, word.start())), stretch)


def _replace(match: re.Match[str], opens_sentence: bool) -> str:
    word = match[0]
    if word.islower():
        return find_synonym(word) or word
    synonym = find_synonym(word.lower()) if opens_sentence and word.istitle() else None
    return synonym.capitalize() if synonym else word
