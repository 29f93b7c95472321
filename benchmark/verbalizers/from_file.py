"""Texts that somebody made elsewhere, from a file: a verbalizer that only looks up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..activations import ActivationBatch
from ..assets import file_sha256
from ..errors import BadInput
from ..store import array_fingerprint
from .base import Verbalization, VerbalizerCard, check_text


@dataclass(frozen=True)
class TextsFromFile:
    """texts: by the fingerprint of the vector that they were written for."""

    card: VerbalizerCard
    texts: Mapping[str, Verbalization]

    def verbalize(self, batch: ActivationBatch) -> list[Verbalization]:
        return [self.texts[array_fingerprint(vector.numpy())] for vector in batch.vectors]


def read_texts(file: Path, vectors_by_id: Mapping[str, str], card: VerbalizerCard) -> TextsFromFile:
    """Read `verbalizations.jsonl`: one {"item_id": …, "text": …} a line, each exported item once.

    vectors_by_id: the fingerprint of every exported vector. A null text counts as a failure on that item.

    Raises:
        BadInput: a line that does not parse, an unknown, repeated or missing item, a text that cannot be taken.
    """
    texts: dict[str, Verbalization] = {}
    seen: set[str] = set()
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"The file of texts {file} cannot be read: {error}. It is UTF-8, one JSON object a line."
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        item_id, text = _parse(file, number, line)
        if item_id not in vectors_by_id:
            raise BadInput(
                f"{file}, line {number}: there is no item {item_id!r} in this run's export. Use the item_id column of "
                "its activations.parquet as it is."
            )
        if item_id in seen:
            raise BadInput(f"{file}, line {number}: item {item_id!r} was given before. Give each item one text.")
        seen.add(item_id)
        found = Verbalization("", error="no text was given") if text is None else check_text(card.name, item_id, text)
        texts[vectors_by_id[item_id]] = found
    missing = [item_id for item_id in vectors_by_id if item_id not in seen]
    if missing:
        raise BadInput(
            f"{file} has texts for {len(seen)} of {len(vectors_by_id)} items; missing are {', '.join(missing[:5])}"
            f'{", …" if len(missing) > 5 else ""}. Give every exported item a line ("text": null where your '
            "verbalizer failed: it is scored as an empty text and counted)."
        )
    named = card.model_copy(update={"settings": {**card.settings, "texts_sha256": file_sha256(file)}})
    return TextsFromFile(named, texts)


def _parse(file: Path, number: int, line: str) -> tuple[str, object]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{file}, line {number} is not JSON: {error}. Write one JSON object a line.") from error
    if not isinstance(row, dict) or not isinstance(row.get("item_id"), str) or "text" not in row:
        raise BadInput(
            f"{file}, line {number}: {line[:80]!r} has not the form "
            '{"item_id": "…", "text": "…"}. Give both, and nothing else is needed.'
        )
    return row["item_id"], row["text"]
