"""Texts that were written for the scorers are flagged, and honest ones are not."""

from __future__ import annotations

from nlabench.leaderboard.suspicion import find_suspicious_texts

DESCRIPTIONS = ["Texts about the open sea, its waves, tides and the ships that cross it."]
TITLES = ["the ocean", "war", "cooking", "chess", "winter", "gardening"]
HONEST = [f"a person walks home in the rain, number {i}, near the ocean" for i in range(50)]


def test_honest_texts_are_not_flagged() -> None:
    assert find_suspicious_texts(HONEST, DESCRIPTIONS, TITLES) == []


def test_texts_that_copy_a_description_are_flagged() -> None:
    copies = [f"{text}; {DESCRIPTIONS[0].upper()}" for text in HONEST[:10]]
    (flag,) = find_suspicious_texts(HONEST + copies, DESCRIPTIONS, TITLES)
    assert flag == "10 of 60 texts copy 8 words or more of a concept's description"


def test_texts_that_list_concepts_are_flagged() -> None:
    (flag,) = find_suspicious_texts([f"{i} {' '.join(TITLES)}" for i in range(9)], DESCRIPTIONS, TITLES)
    assert flag == "9 of 9 texts name 5 concepts or more"


def test_texts_that_are_all_alike_are_flagged() -> None:
    (flag,) = find_suspicious_texts(["nothing"] * 200, DESCRIPTIONS, TITLES)
    assert flag == "200 texts are 1 different ones"
