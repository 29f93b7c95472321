"""Steers and said: at one strength, which directions steer the subject, and which a verbalizer's texts say."""

from __future__ import annotations

from typing import Any

from ..behaviour import FALSE_DISCOVERY_RATE
from ..findings import FEW_PROMPTS, crossing_strength
from ..records import Result, SaidRow
from ..said import cross
from .shown import in_reading_order, rounded


def steers_and_said(result: Result) -> dict[str, Any] | None:
    """Per verbalizer and strength: the four cells as numbers of concepts, and the test behind every verdict.

    None where no strength was both tried by the gate and read upstream.
    """
    strengths = sorted({row.r for row in result.gate} & {row.r for row in result.said})
    if not strengths:
        return None
    numbers = {concept.name: number for number, concept in enumerate(result.concepts)}
    by_name: dict[str, list[SaidRow]] = {}
    for row in result.said:
        by_name.setdefault(row.verbalizer, []).append(row)
    prompts = [row.n_prompts for row in result.said]
    return {
        "scorer": result.said[0].scorer,
        "rate": result.provenance.gate.get("false_discovery_rate", FALSE_DISCOVERY_RATE),
        "prompts": [min(prompts), max(prompts)],
        "few": max(prompts) <= FEW_PROMPTS,
        "strengths": strengths,
        "start": crossing_strength(result),
        "crossings": [
            {"verbalizer": name, "at": [_at(result, by_name[name], r, numbers) for r in strengths]}
            for name in in_reading_order(result.verbalizers)
            if name in by_name
        ],
    }


def _at(result: Result, said: list[SaidRow], r: float, numbers: dict[str, int]) -> dict[str, Any]:
    """cells: steers and said, steers unsaid, said without steering, neither; tests: [concept, score, permuted, q]."""
    found = cross(result.gate, said, r)
    cells = (found.steers_and_said, found.steers_unsaid, found.said_without_steering, found.neither)
    return {
        "r": r,
        "cells": [[numbers[name] for name in names] for names in cells],
        "tests": [
            [numbers[row.concept], rounded(row.score), rounded(row.permuted), rounded(row.q)]
            for row in said
            if row.r == r
        ],
    }
