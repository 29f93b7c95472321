"""The documents that the reference NLA learns from: real text of registry packages, loaded at run time, never shipped.

Two packages: `sae-probes` (labelled prose, web pages and code, see nlabench.benchmark.sae_probes) and `django` (its
translation catalogues: English messages beside their translations). No text of nlabench's concept packs is among them:
`leave_out_pack` sees to it.
"""

from __future__ import annotations

import html
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nlabench.benchmark.assets import cache_folder, file_sha256
from nlabench.benchmark.concepts import ConceptPack
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.sae_probes import load_labelled_texts

#: Words in a row that a training text and a pack text may at most share.
LONGEST_SHARED_RUN = 7

DJANGO = "django==5.2.19"
DJANGO_SHA256 = "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00"
LANGUAGES = {"fr": "French", "de": "German", "es": "Spanish", "it": "Italian", "nl": "Dutch", "pt": "Portuguese"}


@dataclass(frozen=True)
class Document:
    """A text, the set that it is from, and what kind of text the set says that it is ("Text" where it says nothing)."""

    source: str
    kind: str
    text: str


def _always(kind: str) -> Callable[[str], str]:
    return lambda _: kind


def _when(target: str, kind: str) -> Callable[[str], str]:
    return lambda found: kind if found == target else "Text"


#: The sets that are taken, how many documents of each at most, and the kind that a document's label makes it.
#: Left out are multiple-choice sets (their template leaks into the texts), lists of names, and sets of abuse.
SETS: dict[str, tuple[int, Callable[[str], str]]] = {
    "97_news_class": (1800, _always("News")),
    "100_news_fake": (500, _always("News")),
    "102_twt_emotion": (1500, lambda emotion: f"Message of {emotion}"),
    "99_sci_cat": (900, lambda science: f"{science} question"),
    "101_disease_class": (700, _always("Medical study")),
    "111_yelp_data": (1000, _always("Review")),
    "157_amazon_5star": (400, _always("Review")),
    "113_movie_sent": (700, _always("Film review")),
    "48_cm_correct": (900, _always("Personal story")),
    "51_just_is": (600, _always("Personal story")),
    "50_deon_isvalid": (500, _always("Excuse")),
    "45_context_ans": (1100, _always("Story")),
    "42_temp_sense": (400, _always("Story")),
    "94_ai_gen": (600, _always("Essay")),
    "110_aimade_humangpt3": (500, _always("Answer")),
    "56_wikidatasex_or_gender": (1300, _always("Text")),
    "59_wikidata_occupation_isjournalist": (500, _always("Text")),
    "60_wikidata_occupation_isathlete": (500, _always("Text")),
    "61_wikidata_occupation_isactor": (500, _always("Text")),
    "63_wikidata_occupation_issinger": (500, _always("Text")),
    "158_code_C": (700, _when("1", "C code")),
    "159_code_Python": (700, _when("1", "Python code")),
    "160_code_HTML": (600, _when("1", "HTML code")),
    "161_agnews_0": (900, _always("Text")),
    "66_living-room": (600, _always("Text")),
    "71_social-media": (400, _always("Text")),
    "74_magnetic-field": (300, _always("Text")),
    "76_trial-court": (500, _always("Court ruling")),
    "79_human-rights": (400, _always("Text")),
    "68_credit-card": (400, _always("Text")),
    "85_mental-health": (400, _always("Text")),
    "65_high-school": (400, _always("Text")),
    "88_glue_mnli": (500, _always("Text")),
}
TRANSLATED_PER_LANGUAGE = 350


def load_documents(seed: int) -> list[Document]:
    """Every document, each text once, shuffled.

    Raises:
        BadInput: a package cannot be fetched, or is not the one that this was written for.
    """
    rng = random.Random(seed)
    found: dict[str, Document] = {}
    for source, (most, kind_of) in SETS.items():
        frame = load_labelled_texts(source)
        rows = list(zip(frame["prompt"].astype(str), frame["target"].astype(str), strict=True))
        rng.shuffle(rows)
        taken = 0
        for text, target in rows:
            clean = _clean(text)
            if taken < most and len(clean) >= 40 and clean not in found:
                found[clean] = Document(source, kind_of(target), clean)
                taken += 1
    for document in _translations(rng):
        found.setdefault(document.text, document)
    documents = list(found.values())
    rng.shuffle(documents)
    return documents


def leave_out_pack(documents: Sequence[Document], pack: ConceptPack) -> list[Document]:
    """The documents that share no run of words with a text or description of the pack; see `leave_out_shared`."""
    theirs = [text.text for concept in pack.concepts for texts in concept.texts.values() for text in texts]
    theirs += [text.text for texts in pack.neutral.values() for text in texts] + pack.descriptions
    return leave_out_shared(documents, theirs)


def leave_out_shared(documents: Sequence[Document], texts: Iterable[str]) -> list[Document]:
    """The documents that share no run of more than LONGEST_SHARED_RUN words with any of the texts.

    Texts of registries repeat: one story under several questions, one licence over many files.
    """
    size = LONGEST_SHARED_RUN + 1
    runs = {run for text in texts for run in word_runs(text, size)}
    return [document for document in documents if runs.isdisjoint(word_runs(document.text, size))]


def word_runs(text: str, size: int) -> Iterator[tuple[str, ...]]:
    """Every run of `size` words in a row, in lower case and without punctuation; a shorter text is one run."""
    words = re.findall(r"\w+", text.lower())
    for start in range(max(1, len(words) - size + 1)):
        yield tuple(words[start : start + size])


def _clean(text: str) -> str:
    """Web leftovers out, white space within lines folded (lines are kept: code has them)."""
    text = html.unescape(text).replace("�", "").replace("[SEP]", "|")
    text = re.sub(r"https?://\S+|@\w+", "", text)
    return re.sub(r"\n\s*\n+", "\n", re.sub(r"[ \t\r\f\v]+", " ", text)).strip()


def _translations(rng: random.Random) -> Iterator[Document]:
    """Messages of Django's catalogues: some translations in a row, half of them with the English beside."""
    with zipfile.ZipFile(_fetch_django()) as wheel:
        for code, language in LANGUAGES.items():
            names = [n for n in wheel.namelist() if n.endswith(f"locale/{code}/LC_MESSAGES/django.po")]
            catalogue = "\n\n".join(wheel.read(name).decode() for name in sorted(names))
            pairs = [pair for pair in _messages(catalogue) if len(pair[1]) > 25]
            for _ in range(TRANSLATED_PER_LANGUAGE):
                chosen = rng.sample(pairs, 3)
                mixed = rng.random() < 0.5
                lines = [part for english, other in chosen for part in ((english, other) if mixed else (other,))]
                yield Document(f"django/{code}", f"{language} text", " ".join(lines))


def _messages(catalogue: str) -> list[tuple[str, str]]:
    """(English, translation) of every plain message of a .po file."""
    found = []
    for entry in catalogue.split("\n\n"):
        parts = re.match(r'(?:#.*\n)*msgid ((?:".*"\n?)+)msgstr ((?:".*"\n?)+)', entry)
        if parts:
            english, other = ("".join(re.findall(r'"(.*)"', part)) for part in parts.groups())
            plain = [re.sub(r"\\n|\\\"|%\(\w+\)s|%s|%d|<[^>]+>", " ", part).strip() for part in (english, other)]
            if all(plain):
                found.append((plain[0], plain[1]))
    return found


def _fetch_django() -> Path:
    folder = cache_folder() / "assets"
    wheel = folder / f"{DJANGO.replace('==', '-')}-py3-none-any.whl"
    if not wheel.is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run([*command, "--dest", str(folder), DJANGO], capture_output=True, text=True, check=False)
        if done.returncode:
            raise BadInput(
                f"{DJANGO}, whose translations are training text, could not be downloaded: {done.stderr[-300:]}. "
                "Check that pip reaches its registry (`pip config list`)."
            )
    digest = file_sha256(wheel)
    if digest != DJANGO_SHA256:
        raise BadInput(f"{wheel} has sha256 {digest}, expected {DJANGO_SHA256}. Delete it and start again.")
    return wheel
