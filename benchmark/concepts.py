"""Concepts and the packs that hold them: what a text can be about, and texts that express it, split by purpose.

A pack is a JSONL file, or a folder of them, with three kinds of line:

    {"kind": "concept", "name": …, "title": …, "description": …, "family": …, "opposite": … or null}
    {"kind": "text", "concept": …, "purpose": "direction", "text": …}
    {"kind": "neutral", "purpose": "readout", "text": …}

No text serves two purposes; `pack_check.py` enforces that and the rest of what makes a pack usable.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .errors import BadInput

Purpose = Literal["direction", "probe", "natural", "scorer", "validation"]
NeutralPurpose = Literal["direction", "readout", "scorer", "reference"]
PURPOSES: tuple[Purpose, ...] = ("direction", "probe", "natural", "scorer", "validation")
NEUTRAL_PURPOSES: tuple[NeutralPurpose, ...] = ("direction", "readout", "scorer", "reference")

#: What the built-in pack holds per concept, and what `concepts check` asks of any pack.
TEXTS_PER_PURPOSE: dict[Purpose, int] = {"direction": 16, "probe": 8, "natural": 8, "scorer": 8, "validation": 4}

#: Below these a run cannot be made at all.
FEWEST_TEXTS: dict[Purpose, int] = {"direction": 4, "probe": 2, "natural": 2, "scorer": 2, "validation": 1}
FEWEST_NEUTRAL = 8

#: Characters of one text of a pack.
LONGEST_TEXT = 5000

CORE_PACK = Path(__file__).parent / "packs" / "core"


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _ConceptLine(_Line):
    kind: Literal["concept"]
    #: Text ids are `name/purpose/number`, and `neutral/…` for the neutral prompts.
    name: str = Field(min_length=1, max_length=80, pattern="^[^/]+$")
    title: str = Field(min_length=1, max_length=200)
    description: str = Field(min_length=1, max_length=500)
    family: str = Field(min_length=1, max_length=80)
    opposite: str | None = None


class _TextLine(_Line):
    kind: Literal["text"]
    concept: str
    purpose: Purpose
    text: str = Field(min_length=1, max_length=LONGEST_TEXT)
    form: Literal["naming", "being"] | None = None


class _NeutralLine(_Line):
    kind: Literal["neutral"]
    purpose: NeutralPurpose
    text: str = Field(min_length=1, max_length=LONGEST_TEXT)


_LINE: TypeAdapter[_ConceptLine | _TextLine | _NeutralLine] = TypeAdapter(_ConceptLine | _TextLine | _NeutralLine)


@dataclass(frozen=True)
class Text:
    """One text of a pack. `id` is `concept/purpose/number`, or `neutral/purpose/number`."""

    id: str
    text: str
    form: Literal["naming", "being"] | None = None


@dataclass(frozen=True)
class Concept:
    """What an activation may hold: a name, a one-sentence description, a family, and texts split by purpose."""

    name: str
    title: str
    description: str
    family: str
    opposite: str | None
    texts: Mapping[Purpose, tuple[Text, ...]]


@dataclass(frozen=True)
class ConceptPack:
    """Concepts, and neutral prompts that express none of them."""

    name: str
    concepts: tuple[Concept, ...]
    neutral: Mapping[NeutralPurpose, tuple[Text, ...]]

    @property
    def names(self) -> list[str]:
        return [concept.name for concept in self.concepts]

    @property
    def families(self) -> list[str]:
        return [concept.family for concept in self.concepts]

    @property
    def descriptions(self) -> list[str]:
        return [concept.description for concept in self.concepts]

    def fingerprint(self) -> str:
        """A hash of everything in the pack that can change a number."""
        content = [
            [c.name, c.title, c.description, c.family, c.opposite, {p: [t.text for t in c.texts[p]] for p in PURPOSES}]
            for c in self.concepts
        ]
        neutral = {p: [t.text for t in self.neutral[p]] for p in NEUTRAL_PURPOSES}
        return hashlib.sha256(json.dumps([content, neutral], sort_keys=True).encode()).hexdigest()[:16]

    def select(self, n_concepts: int) -> ConceptPack:
        """The first concepts of every family in turn, so that a small selection still spans the families.

        A concept whose opposite would be left out loses the reference to it.
        """
        by_family: dict[str, list[Concept]] = {}
        for concept in self.concepts:
            by_family.setdefault(concept.family, []).append(concept)
        depth = max(map(len, by_family.values()))
        in_turn = [group[i] for i in range(depth) for group in by_family.values() if i < len(group)][:n_concepts]
        kept = {concept.name for concept in in_turn}
        chosen = sorted(in_turn, key=lambda c: (list(by_family).index(c.family), self.concepts.index(c)))
        return replace(self, concepts=tuple(c if c.opposite in kept else replace(c, opposite=None) for c in chosen))


def load_pack(source: str | Path = "core") -> ConceptPack:
    """Load a pack: `core` (built in), `sae-probes:NAME` (labelled texts), a JSONL file, or a folder of JSONL files.

    Raises:
        BadInput: nothing there, a line that does not parse, duplicate names, too few concepts or texts.
    """
    kind, _, name = str(source).partition(":")
    if kind == "sae-probes":
        from .labelled_pack import load_labelled_pack

        return load_labelled_pack(name)
    path = CORE_PACK if str(source) == "core" else Path(source)
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise BadInput(
            f"There is no concept pack at {str(source)!r}. Give 'core' (built in), 'sae-probes:NAME' (labelled texts), "
            "a JSONL file or a folder of JSONL files; `nlabench concepts check --help` shows the format."
        )
    lines = [line for file in files for line in _parse_file(file)]
    return _assemble("core" if path == CORE_PACK else path.stem, lines)


def pack_from_rows(
    name: str,
    rows: Iterable[Mapping[str, Any]],
    neutral: Sequence[str] | Mapping[NeutralPurpose, Sequence[Text]],
    *,
    columns: Mapping[str, str],
    seed: int = 0,
) -> ConceptPack:
    """A pack from labelled rows, split once by purpose in the shares of the built-in pack (16 : 8 : 8 : 8 : 4).

    columns: which column holds `text` and `concept`, and optionally `description`, `family`, `title`.
    neutral: texts that express none of the concepts, split into the four neutral purposes alike; or the neutral
    prompts of another pack, which keep their purposes.

    Raises:
        BadInput: a column is missing, or a concept has too few texts for a split.
    """
    unmapped = [key for key in ("text", "concept") if key not in columns]
    if unmapped:
        raise BadInput(
            f"The columns of {name!r} are mapped without {unmapped[0]!r}: {dict(columns)}. Say which column holds the "
            "text and which the concept, for instance columns={'text': 'sentence', 'concept': 'label'}."
        )
    lines: list[_ConceptLine | _TextLine | _NeutralLine] = []
    by_concept: dict[str, list[str]] = {}
    meta: dict[str, Mapping[str, Any]] = {}
    for number, row in enumerate(rows):
        absent = [column for column in columns.values() if column not in row]
        if absent:
            raise BadInput(
                f"Row {number} of {name!r} has no column {absent[0]!r}; it has {', '.join(map(str, row))}. "
                "Map the columns, for instance columns={'text': 'sentence', 'concept': 'label'}."
            )
        text = row[columns["text"]]
        if not isinstance(text, str) or not 0 < len(text) <= LONGEST_TEXT:
            raise BadInput(
                f"Row {number} of {name!r} has {str(text)[:40]!r} for a text. Give a text of 1 to {LONGEST_TEXT:,} "
                "characters, or leave the row out."
            )
        concept = str(row[columns["concept"]])
        by_concept.setdefault(concept, []).append(text)
        meta.setdefault(concept, row)
    rng = np.random.default_rng(seed)
    shares = np.cumsum([0, *TEXTS_PER_PURPOSE.values()]) / sum(TEXTS_PER_PURPOSE.values())
    for concept, texts in by_concept.items():
        row = meta[concept]

        def field(key: str, default: str, row: Mapping[str, Any] = row) -> str:
            return str(row[columns[key]]) if key in columns else default

        title = field("title", concept.replace("_", " "))
        lines.append(
            _ConceptLine(
                kind="concept", name=concept, title=title, family=field("family", "all"),
                description=field("description", f"The text is about {title}."),
            )
        )  # fmt: skip
        unique = list(dict.fromkeys(texts))
        order = rng.permutation(len(unique))
        for (start, end), purpose in zip(_spans(shares, len(unique)), PURPOSES, strict=True):
            lines += [
                _TextLine(kind="text", concept=concept, purpose=purpose, text=unique[i]) for i in order[start:end]
            ]
    if isinstance(neutral, Mapping):
        kept = [(kind, text.text) for kind in NEUTRAL_PURPOSES for text in neutral[kind]]
        lines += [_NeutralLine(kind="neutral", purpose=kind, text=text) for kind, text in kept]
        return _assemble(name, lines)
    quarter = np.linspace(0, 1, 5)
    order = rng.permutation(len(neutral))
    for (start, end), kind in zip(_spans(quarter, len(neutral)), NEUTRAL_PURPOSES, strict=True):
        lines += [_NeutralLine(kind="neutral", purpose=kind, text=neutral[i]) for i in order[start:end]]
    return _assemble(name, lines)


def load_dataset_pack(
    path: str, *, columns: Mapping[str, str], neutral: Sequence[str], split: str = "train", seed: int = 0
) -> ConceptPack:
    """A pack from a Hugging Face dataset: a hub id, or local CSV, JSON, JSONL or parquet files.

    Raises:
        BadInput: the dataset cannot be loaded, or its rows cannot make a pack.
    """
    import datasets

    builders = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
    builder = builders.get(Path(path).suffix)
    if Path(path).is_file() and builder is None:
        raise BadInput(f"The file {path!r} is none of {', '.join(builders)}. Convert it to one of these.")
    try:
        if builder is not None:
            rows = datasets.load_dataset(builder, data_files=path, split=split)
        else:
            rows = datasets.load_dataset(path, split=split)
    except Exception as error:
        raise BadInput(
            f"The dataset {path!r} (split {split!r}) could not be loaded: {str(error)[:300]}. Give a hub id that this "
            "machine can reach, or a local csv, json, jsonl or parquet file."
        ) from error
    return pack_from_rows(Path(path).stem, rows, neutral, columns=columns, seed=seed)


def write_pack(pack: ConceptPack, file: Path) -> None:
    """Write a pack as one JSONL file that `load_pack` reads back."""
    lines: list[BaseModel] = []
    for c in pack.concepts:
        lines.append(
            _ConceptLine(
                kind="concept", name=c.name, title=c.title, description=c.description, family=c.family,
                opposite=c.opposite,
            )
        )  # fmt: skip
        lines += [
            _TextLine(kind="text", concept=c.name, purpose=p, text=t.text, form=t.form)
            for p in PURPOSES
            for t in c.texts[p]
        ]
    lines += [_NeutralLine(kind="neutral", purpose=p, text=t.text) for p in NEUTRAL_PURPOSES for t in pack.neutral[p]]
    file.write_text("".join(line.model_dump_json(exclude_none=True) + "\n" for line in lines), encoding="utf-8")


def _spans(shares: np.ndarray[Any, np.dtype[np.float64]], n: int) -> list[tuple[int, int]]:
    edges = np.round(shares * n).astype(int).tolist()
    return list(pairwise(edges))


def _parse_file(file: Path) -> list[_ConceptLine | _TextLine | _NeutralLine]:
    lines = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            lines.append(_LINE.validate_json(line))
        except ValidationError as error:
            first = error.errors()[-1]
            raise BadInput(
                f"{file}, line {number}: {first['msg']} (at {'.'.join(map(str, first['loc']))}). A line is a concept, "
                "a text or a neutral prompt; `nlabench concepts check --help` shows the format."
            ) from error
    return lines


def _assemble(name: str, lines: Sequence[_ConceptLine | _TextLine | _NeutralLine]) -> ConceptPack:
    heads = [line for line in lines if isinstance(line, _ConceptLine)]
    if any(head.name == "neutral" for head in heads):
        raise BadInput(f"The pack {name!r} has a concept named 'neutral', which is what neutral prompts are called.")
    repeated = [n for n, k in Counter(head.name for head in heads).items() if k > 1]
    if repeated:
        raise BadInput(f"The pack {name!r} names the concept {repeated[0]!r} more than once. Give each its own name.")
    if len(heads) < 2:
        raise BadInput(
            f"The pack {name!r} has {len(heads)} concept(s). Identification needs at least two (forty or more for "
            "useful intervals): add concepts."
        )
    texts: dict[str, dict[Purpose, list[Text]]] = {head.name: {p: [] for p in PURPOSES} for head in heads}
    neutral: dict[NeutralPurpose, list[Text]] = {p: [] for p in NEUTRAL_PURPOSES}
    for line in lines:
        if isinstance(line, _NeutralLine):
            bucket = neutral[line.purpose]
            bucket.append(Text(f"neutral/{line.purpose}/{len(bucket)}", line.text))
        elif isinstance(line, _TextLine):
            if line.concept not in texts:
                raise BadInput(
                    f"The pack {name!r} has a text of the concept {line.concept!r}, which it does not define. Add a "
                    f'line {{"kind": "concept", "name": "{line.concept}", …}}.'
                )
            bucket = texts[line.concept][line.purpose]
            bucket.append(Text(f"{line.concept}/{line.purpose}/{len(bucket)}", line.text, line.form))
    for head in heads:
        for purpose, fewest in FEWEST_TEXTS.items():
            if len(texts[head.name][purpose]) < fewest:
                raise BadInput(
                    f"The concept {head.name!r} of pack {name!r} has {len(texts[head.name][purpose])} {purpose} texts; "
                    f"a run needs at least {fewest} (the built-in pack has {TEXTS_PER_PURPOSE[purpose]}). Add texts."
                )
        forms = {text.form for text in texts[head.name]["validation"]}
        if forms in ({"naming"}, {"being"}):
            raise BadInput(
                f"The validation texts of {head.name!r} in pack {name!r} are all of the form {forms.pop()!r}; a scorer "
                "is tested on texts that name a concept and on texts that are it. Add the other form, or leave `form` "
                "out (a text without one counts for both)."
            )
    for kind, found in neutral.items():
        if len(found) < FEWEST_NEUTRAL:
            raise BadInput(
                f"The pack {name!r} has {len(found)} neutral {kind} prompts; a run needs at least {FEWEST_NEUTRAL} "
                "(the built-in pack has 40 or more). Add ordinary sentences that express no concept of the pack."
            )
    concepts = tuple(
        Concept(h.name, h.title, h.description, h.family, h.opposite, {p: tuple(t) for p, t in texts[h.name].items()})
        for h in heads
    )
    return ConceptPack(name, concepts, {p: tuple(t) for p, t in neutral.items()})
