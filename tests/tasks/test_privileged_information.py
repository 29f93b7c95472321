"""Where the words are the same, a reader of words is at chance, and who sees the vector is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from nlabench.benchmark.panel import Panel
from nlabench.benchmark.records import MetricRow
from nlabench.benchmark.statistics import resample
from nlabench.tasks.privileged_information import TASK

CONCEPTS, PROMPTS = 8, 6
WORDS = ("the", "of", "in")
Scores = Callable[[pd.Series, int, np.random.Generator], float]


def make_items() -> pd.DataFrame:
    def item(arm: str, concept: int | None, prompt: str, number: int, word: str, r: float = 0.0) -> dict[str, object]:
        return {
            "arm": arm, "injection": "readout" if r else "none", "prompt": prompt, "prompt_number": number,
            "position": 5, "word": word, "r": r, "concept": None if concept is None else f"c{concept}",
            "concept_number": np.nan if concept is None else concept, "level": "grid", "kind": "function",
        }  # fmt: skip

    # Words go with concepts (four texts in six), so that the last word alone tells something of the concept.
    rows = [
        item("natural", c, f"c{c}/{k}", 6 * c + k, WORDS[(c + k * (k > 3)) % 3])
        for c in range(CONCEPTS)
        for k in range(6)
    ]
    prompts = range(PROMPTS)
    rows += [item("steered", c, f"p{p}", p, WORDS[p % 3], 1.0) for c in range(CONCEPTS) for p in prompts]
    return pd.DataFrame(rows + [item("neutral", None, f"p{p}", p, WORDS[p % 3]) for p in prompts])


def make_panel(**verbalizers: Scores) -> Panel:
    items = make_items()
    table = {"last-token": of_the_word, **verbalizers}
    rng = np.random.default_rng(0)
    scores = [
        [[score(item, c, rng) for c in range(CONCEPTS)] for _, item in items.iterrows()] for score in table.values()
    ]
    names = [f"c{c}" for c in range(CONCEPTS)]
    return Panel(
        items=items,
        scores=np.array(scores),
        sets=[(name, "scorer") for name in table],
        texts={},
        roles={name: "reader" if name == "last-token" else "submitted" for name in table},
        concepts=names,
        families=names,
        excluded={},
        weights=resample(CONCEPTS, PROMPTS, 50),
    )


def of_the_word(item: pd.Series, column: int, rng: np.random.Generator) -> float:
    """Says the concepts that go with the last word."""
    return float(WORDS[column % 3] == item["word"])


def sees(item: pd.Series, column: int, rng: np.random.Generator) -> float:
    return (3.0 if item["concept_number"] == column else 0.0) + rng.normal()


def of_the_prompt(item: pd.Series, column: int, rng: np.random.Generator) -> float:
    return float(np.sin(7 * item["prompt_number"] + column))


def one(rows: list[MetricRow], metric: str, verbalizer: str, arm: str, versus: str | None = None) -> MetricRow:
    found = [r for r in rows if (r.metric, r.verbalizer, r.arm, r.versus) == (metric, verbalizer, arm, versus)]
    assert len(found) == 1, (metric, verbalizer, arm, len(found))
    return found[0]


def test_the_last_word_tells_the_concept_but_not_among_items_that_share_it() -> None:
    panel = make_panel(seer=sees)
    natural = panel.rows(arm="natural")
    assert panel.auroc(natural).point[0] > 0.6
    rows = TASK.score(panel)
    for arm in ("natural", "steered"):
        assert one(rows, "auroc_same_tokens", "last-token", arm).value == 0.5


@pytest.mark.parametrize("arm", ["natural", "steered"])
def test_last_token_has_no_information_over_itself_and_who_sees_the_vector_has(arm: str) -> None:
    rows = TASK.score(make_panel(seer=sees))
    assert one(rows, "information_over_text", "last-token", arm, versus="last-token").value == 0.0
    seer = one(rows, "information_over_text", "seer", arm, versus="last-token")
    assert seer.low is not None
    assert seer.low > 0.3


def test_a_reader_of_the_whole_prompt_is_at_chance_where_items_share_their_prompt() -> None:
    rows = TASK.score(make_panel(prompter=of_the_prompt, seer=sees))
    assert one(rows, "auroc_same_tokens", "prompter", "steered").value == 0.5
    assert one(rows, "told_from_neutral", "prompter", "steered").value == 0.5
    assert (one(rows, "told_from_neutral", "seer", "steered").value or 0) > 0.9


def test_items_whose_word_no_other_concept_shares_are_compared_with_nothing() -> None:
    panel = make_panel(seer=sees)
    alone = panel.items.assign(word=panel.items["concept"].fillna("none"))
    rows = TASK.score(Panel(**{**panel.__dict__, "items": alone}))
    assert not [row for row in rows if row.arm == "natural"]
