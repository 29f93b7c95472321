"""What the board's tests share: entries whose order is planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from nlabench.leaderboard.entries import Entry, read_entry
from nlabench.submitting import submit

#: The share of items on which each says nothing: two that are alike, one far behind, one that guesses.
SILENT = {"good": 0.1, "like": 0.1, "poor": 0.6, "mute": 1.0}
CARD = {"authors": ["A"], "link": "https://example.org", "licence": "MIT", "training_data": "none"}


@pytest.fixture(scope="session")
def planted_entries(
    tmp_path_factory: pytest.TempPathFactory,
    write_planted_run: Callable[..., Path],
    say_planted: Callable[..., list[str]],
) -> dict[str, Entry]:
    """Entries by name: good, like (it), poor and mute. Every one has all its texts."""
    home = tmp_path_factory.mktemp("planted")
    said = {name: say_planted(share, seed=i) for i, (name, share) in enumerate(SILENT.items())}
    run = write_planted_run(home / "run", said)
    found = {}
    for name in said:
        entry = read_entry(submit(run, home / name, verbalizer=name, **CARD))
        record = entry.result.verbalizers[name]
        whole = record.model_copy(update={"n_texts": sum(arm.n_items for arm in entry.result.arms)})
        verbalizers = {**entry.result.verbalizers, name: whole}
        found[name] = replace(entry, result=entry.result.model_copy(update={"verbalizers": verbalizers}))
    return found
