"""A board as plain data, for pages: every entry's figures and ranks, and every pair's difference. JSON-able."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from ..benchmark.records import MetricRow
from ..benchmark.report.shown import ROLES
from ..benchmark.statistics import RankInterval
from .columns import COLUMNS, Column, find_place, find_row, shown_columns
from .entries import Entry
from .profile import concept_values, count_sayings, dose_curve, family_means, tradeoff_curve, whole_rows
from .ranking import Board, compare_all, group_boards, rank, why_unranked
from .results_store import slug


def build_boards(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The boards of entries that were measured in the same way: the one with most entries first, private packs last."""
    boards = [_build(board) for board in group_boards(entries)]
    return sorted(boards, key=lambda board: (board["private"], -len(board["entries"]), board["key"]))


def _build(board: Board) -> dict[str, Any]:
    board = Board(board.title, tuple(sorted(board.entries, key=_reading_order)))
    first = board.entries[0].result
    made, columns = first.provenance, shown_columns(board.entries)
    ranks = {column.name: rank(board, column) for column in columns}
    return {
        "key": _key(board.entries[0]),
        "title": board.title,
        "subject": made.subject,
        "layer": made.layer,
        "blocks": made.subject_blocks,
        "suite": str(made.suite.get("name")),
        "suite_version": str(made.suite.get("version")),
        "pack": made.pack,
        "private": any(entry.private for entry in board.entries),
        "scorer": first.headline_scorer,
        "n_items": sum(arm.n_items for arm in first.arms),
        "n_concepts": len(first.concepts),
        "columns": [
            {
                "id": c.name,
                "title": c.title,
                "what": c.what,
                "better": c.better,
                "ranked": c.ranked,
                "headline": c in COLUMNS,
            }
            for c in columns
        ],
        "entries": [_entry(entry, board, columns, ranks) for entry in board.entries],
        "pairs": _pairs(board, columns),
        "families": list(dict.fromkeys(concept.family for concept in first.concepts)),
        "provenance": made.model_dump(mode="json"),
    }


def _entry(
    entry: Entry, board: Board, columns: Sequence[Column], ranks: dict[str, dict[str, RankInterval]]
) -> dict[str, Any]:
    record, why = entry.result.verbalizers[entry.card.name], why_unranked(entry, board.entries)
    return {
        "id": entry.id,
        "slug": slug(entry.card.name),
        "name": entry.card.name,
        "role": entry.card.role,
        "status": entry.status,
        "verified": entry.verified.model_dump(mode="json") if entry.verified else None,
        "card": entry.card.model_dump(mode="json"),
        "failed": record.n_failed,
        "n_texts": record.n_texts,
        "texts_per_second": record.texts_per_second,
        "seconds": record.seconds,
        "warnings": list(record.warnings),
        "rescored": entry.result.provenance.rescored,
        "eligible": not why,
        "why_not": why,
        "cells": {
            column.name: _cell(entry, row, ranks[column.name].get(entry.id), len(ranks[column.name]))
            for column in columns
            if (row := find_row(entry, column))
        },
        "dose": dose_curve(entry),
        "tradeoff": tradeoff_curve(entry),
        "metrics": whole_rows(entry),
        "families": family_means(entry),
        "concepts": concept_values(entry),
        "said": count_sayings(entry),
    }


def _cell(entry: Entry, row: MetricRow, found: RankInterval | None, of: int) -> dict[str, Any]:
    place = find_place(entry, row)
    return {
        "value": _rounded(row.value),
        "low": _rounded(row.low),
        "high": _rounded(row.high),
        "note": "; ".join(part for part in (row.note, f"over {row.versus}" if row.versus else "") if part),
        "censored_at": row.censored_at,
        "place": place and {name: _rounded(getattr(place, name)) for name in ("value", "low", "high")},
        "of": of,
        "best": found.best if found else None,
        "worst": found.worst if found else None,
    }


def _pairs(board: Board, columns: Sequence[Column]) -> dict[str, dict[str, list[float | None]]]:
    """Differences by "id|id" and column."""
    found: dict[str, dict[str, list[float | None]]] = {}
    for column in columns:
        for (a, b), numbers in compare_all(board, column).items():
            found.setdefault(f"{a}|{b}", {})[column.name] = [_rounded(number) for number in numbers]
    return found


def _rounded(number: float | None) -> float | None:
    """Six decimals: a page that shows two must round the number itself, and a bound beside 0 stays on its side."""
    return None if number is None else round(number, 6)


def _reading_order(entry: Entry) -> tuple[int, str, str, str]:
    return ROLES.index(entry.card.role), entry.card.name, entry.result.provenance.started, entry.id


def _key(entry: Entry) -> str:
    """A board's name in an address: what it is of, and a hash of what makes it one board, the same for every build."""
    made = entry.result.provenance
    suite = {name: value for name, value in made.suite.items() if name != "readers"}
    scorers = [scorer.fingerprint for scorer in entry.result.scorers]
    parts: list[Any] = [made.subject_fingerprint, made.pack_fingerprint, suite, made.tasks, scorers, made.dtype]
    parts += [made.layer, made.injection_layer, made.preamble_tokens, made.readout_prompts]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:6]
    return f"{slug(made.subject)}-{made.layer}-{slug(str(made.suite.get('name')))}-{slug(made.pack)}-{digest}"
