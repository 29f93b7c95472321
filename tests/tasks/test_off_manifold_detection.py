"""Detection on panels whose truth is planted: who knows the arm, who knows nothing, and who knows the prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from nlabench.benchmark.activations import ActivationBatch, ItemSpec, Readout, Site
from nlabench.benchmark.engine import LocalEngine
from nlabench.benchmark.extraction import Activations
from nlabench.benchmark.panel import Panel
from nlabench.benchmark.records import MetricRow
from nlabench.benchmark.roster import Roster
from nlabench.benchmark.statistics import resample
from nlabench.benchmark.store import Store
from nlabench.benchmark.study import CONTROL_DRAWS
from nlabench.benchmark.transcript import OF_VECTORS, Transcript
from nlabench.benchmark.verbalizers.base import Verbalization, VerbalizerCard
from nlabench.benchmark.verbalizing import Verbalized
from nlabench.tasks import off_manifold_detection
from nlabench.tasks.off_manifold_detection import TASK, OffManifoldDetection, measure_surprise
from torch import Tensor

CONCEPTS, PROMPTS, GRID = 8, 12, (0.1, 0.5, 1.0)

#: A detector is a function (item, rng) -> value.
Value = Callable[[pd.Series, np.random.Generator], float]


def make_items() -> pd.DataFrame:
    """The design of the quick suite, smaller: the same crossing, and the same draws over the prompts."""
    rows: list[dict[str, Any]] = []

    def add(arm: str, number: int, **more: Any) -> None:
        rows.append(
            {
                "arm": arm, "injection": "none", "level": "grid", "concept": None, "prompt": f"p{number}",
                "position": 5, "kind": "function", "word": "the", "r": 0.0, "draw": 0, "prompt_number": number, **more,
            }
        )  # fmt: skip

    for p in range(PROMPTS):
        add("neutral", p)
        for r in GRID:
            moved: dict[str, Any] = {"injection": "readout", "r": r}
            for k in range(2):
                add("permuted", p, draw=(2 * p + k) % CONTROL_DRAWS, **moved)
            add("random", p, draw=p % CONTROL_DRAWS, **moved)
            add("graft", p, draw=p % CONTROL_DRAWS, **moved)
    for c in range(CONCEPTS):
        for k in range(3):
            add("natural", c * 3 + k, concept=f"c{c}", prompt=f"c{c}/natural/{k}")
            for r in GRID:
                add("steered", (c + 4 * k) % PROMPTS, concept=f"c{c}", injection="readout", r=r)
    items = pd.DataFrame(rows).sample(frac=1, random_state=0, ignore_index=True)  # as a run shuffles them
    items["concept_number"] = items["concept"].map({f"c{c}": c for c in range(CONCEPTS)})
    return items


def make_panel(**detectors: Value) -> Panel:
    """Each detector is one that a verbalizer of its name offers, with luck of its own."""
    items = make_items()
    measured = {OF_VECTORS: {"norm": np.arange(float(len(items)))}}
    for number, (name, value) in enumerate(detectors.items()):
        rng = np.random.default_rng(number)
        measured[name] = {"detect": np.array([value(item, rng) for _, item in items.iterrows()], dtype=float)}
    return Panel(
        items=items,
        scores=np.zeros((0, len(items), CONCEPTS)),
        sets=[],
        texts={},
        roles={},
        concepts=[f"c{c}" for c in range(CONCEPTS)],
        families=["one"] * CONCEPTS,
        excluded={},
        weights=resample(CONCEPTS, PROMPTS, 10, seed=0),
        measured=measured,
    )


def knows_the_arm(item: pd.Series, rng: np.random.Generator) -> float:
    return float(item["arm"] not in ("neutral", "natural"))


def says_one_thing(item: pd.Series, rng: np.random.Generator) -> float:
    return 3.0


def guesses(item: pd.Series, rng: np.random.Generator) -> float:
    return float(rng.normal())


def reads_the_prompt(item: pd.Series, rng: np.random.Generator) -> float:
    """Content and nothing else: the same value for every item of one prompt, moved or not."""
    return math.sin(7 * item["prompt_number"])


def follows_the_dose(item: pd.Series, rng: np.random.Generator) -> float:
    return 3 * float(item["r"]) + float(rng.normal())


def find(rows: list[MetricRow], metric: str = "auroc", **conditions: Any) -> list[MetricRow]:
    return [r for r in rows if r.metric == metric and all(getattr(r, k) == v for k, v in conditions.items())]


def one(rows: list[MetricRow], metric: str = "auroc", **conditions: Any) -> MetricRow:
    found = find(rows, metric, **conditions)
    assert len(found) == 1, (metric, conditions, len(found))
    return found[0]


MOVED = ("steered", "permuted", "random", "graft")


def test_a_detector_that_knows_the_arm_is_perfect_and_one_that_says_one_thing_is_at_one_half_exactly() -> None:
    rows = TASK.score(make_panel(knows=knows_the_arm, constant=says_one_thing))
    for arm in MOVED:
        for r in GRID:
            assert one(rows, arm=arm, r=r, verbalizer="knows").value == 1.0
            assert one(rows, arm=arm, r=r, verbalizer="constant").value == 0.5
            assert one(rows, "auroc_over_neutral", arm=arm, r=r, verbalizer="constant").value == 0.0
    for name in ("knows", "constant"):  # neither finds anything where nothing was moved
        assert one(rows, arm="neutral", r=0.0, verbalizer=name).value == 0.5
        assert one(rows, arm="natural", verbalizer=name).value == 0.5


def test_where_nothing_was_moved_the_interval_holds_one_half_whatever_the_detector() -> None:
    rows = TASK.score(make_panel(**{f"guess {number}": guesses for number in range(24)}))
    found = [row for row in find(rows, arm="neutral", r=0.0) if row.verbalizer != "none"]
    assert sum(row.low <= 0.5 <= row.high for row in found) >= 22
    assert len({row.value for row in found}) > 5  # two groups of items, and not one against itself
    assert np.mean([row.value for row in found]) == pytest.approx(0.5, abs=0.1)


def test_what_the_prompt_says_is_no_detection() -> None:
    rows = TASK.score(make_panel(reader=reads_the_prompt))
    for arm in MOVED:
        for r in GRID:
            assert one(rows, "auroc_over_neutral", arm=arm, r=r, verbalizer="reader").value == 0.0
            found = one(rows, arm=arm, r=r, verbalizer="reader")
            assert found.low < 0.5 < found.high


def test_detection_that_follows_the_dose_is_monotone_and_leads_the_same_prompts_unmoved() -> None:
    rows = TASK.score(make_panel(dose=follows_the_dose, guess=guesses))
    for arm in MOVED:
        values = [one(rows, arm=arm, r=r, verbalizer="dose").value for r in GRID]
        assert values == sorted(values)
        assert one(rows, "monotonicity", arm=arm, verbalizer="dose").value > 0.7
        assert one(rows, "auroc_over_neutral", arm=arm, r=1.0, verbalizer="dose").low > 0
        guess = one(rows, "auroc_over_neutral", arm=arm, r=1.0, verbalizer="guess")
        assert guess.low < 0 < guess.high


def test_what_moved_an_item_is_a_unit_also_where_it_moved_few_prompts() -> None:
    rows = TASK.score(make_panel(dose=follows_the_dose))
    units = {arm: one(rows, arm=arm, r=0.5, verbalizer="dose").n_concepts for arm in MOVED}
    # Twelve grafts by eight draws go toward the states of six prompts; four of the random draws moved one prompt only.
    assert units == {"steered": CONCEPTS, "permuted": CONTROL_DRAWS, "random": CONTROL_DRAWS, "graft": 6}
    assert all(one(rows, arm=arm, r=0.5, verbalizer="dose").n_prompts == PROMPTS for arm in MOVED)
    for arm in MOVED:
        found = one(rows, arm=arm, r=0.1, verbalizer="dose")
        assert found.low < found.value < found.high


def test_an_arm_that_is_one_direction_better_hidden_has_a_wider_interval_than_its_items_alone_give() -> None:
    """Items that share a direction share its fate: the direction is the unit, not the item."""

    def some_directions(item: pd.Series, rng: np.random.Generator) -> float:
        return float(rng.normal()) + (6.0 if item["arm"] == "permuted" and item["draw"] % 2 else 0.0)

    def some_items(item: pd.Series, rng: np.random.Generator) -> float:
        return float(rng.normal()) + (6.0 if item["arm"] == "permuted" and rng.random() < 0.5 else 0.0)

    rows = TASK.score(make_panel(directions=some_directions, items=some_items))
    found = [one(rows, arm="permuted", r=0.5, verbalizer=name) for name in ("directions", "items")]
    assert found[0].high - found[0].low > 1.2 * (found[1].high - found[1].low)


def test_a_detector_stands_beside_its_controls_with_its_lead_over_them() -> None:
    panel = make_panel(pair=follows_the_dose)
    own = panel.measured["pair"]["detect"]
    columns = {"ar_cosine": own, "ar_cosine.constant_text": own, "ar_cosine.other_items_text": np.zeros(len(own))}
    rows = TASK.score(replace(panel, measured={**panel.measured, "pair": columns}))
    cell = {"arm": "steered", "r": 1.0, "verbalizer": "pair", "scorer": "ar_cosine"}
    assert one(rows, "auroc.constant_text", **cell).value == one(rows, **cell).value
    assert one(rows, "auroc_lead", versus="constant_text", **cell).value == 0.0
    lead = one(rows, "auroc_lead", versus="other_items_text", **cell)
    assert lead.value == pytest.approx(one(rows, **cell).value - 0.5)
    assert lead.low > 0


def test_an_item_without_a_text_is_left_out_of_what_reads_the_text_and_counted() -> None:
    panel = make_panel(pair=follows_the_dose)
    whole = panel.measured["pair"]["detect"]
    holed = whole.copy()
    failed = panel.rows(arm="steered", r=1.0)[:2]
    holed[failed] = np.nan
    measured = {**panel.measured, "pair": {"detect": whole, "text_logprob": holed}}
    rows = TASK.score(replace(panel, measured=measured))
    cell = {"arm": "steered", "r": 1.0, "verbalizer": "pair"}
    read, asked = (one(rows, scorer=scorer, **cell) for scorer in ("text_logprob", "detect"))
    assert (read.n_items, asked.n_items) == (3 * CONCEPTS - 2, 3 * CONCEPTS)
    assert read.note == f"2 of {len(panel.items)} items have no text and are left out"
    assert "left out" not in asked.note
    holed[panel.rows(arm="neutral")] = np.nan
    assert not find(TASK.score(replace(panel, measured=measured)), scorer="text_logprob")


def test_the_detector_that_sees_the_prompt_stands_apart_and_changes_no_other_number() -> None:
    panel = make_panel(pair=follows_the_dose)
    before = TASK.score(panel)
    ratio = np.array([float(item["r"]) - 9 * (item["r"] == 0) for _, item in panel.items.iterrows()])
    natural = panel.rows(arm="natural")
    ratio[natural] = np.nan
    columns = {**panel.measured[OF_VECTORS], "inversion_ratio": ratio}
    rows = TASK.score(replace(panel, measured={**panel.measured, OF_VECTORS: columns}))
    own = find_scorer(rows, "inversion_ratio")
    assert [row for row in rows if row not in own] == before
    assert {row.arm for row in own} == {*MOVED, "neutral"}  # natural items have no value, and no row
    for arm in MOVED:
        assert one(own, arm=arm, r=0.1).value == 1.0
    assert one(own, arm="neutral", r=0.0).value == 0.5
    for row in own:
        assert f"{len(natural)} of {len(panel.items)} items (natural texts)" in row.note
        assert "is given the prompt" in row.note


def find_scorer(rows: list[MetricRow], scorer: str) -> list[MetricRow]:
    return [row for row in rows if row.scorer == scorer]


def test_items_that_another_task_asked_for_are_not_compared() -> None:
    panel = make_panel(knows=knows_the_arm)
    further = panel.rows(arm="neutral")[:1]
    items = pd.concat([panel.items, panel.items.iloc[further].assign(position=3)], ignore_index=True)
    measured = {
        name: {column: np.append(values, np.nan) for column, values in columns.items()}
        for name, columns in panel.measured.items()
    }
    rows = TASK.score(replace(panel, items=items, measured=measured))
    assert rows == TASK.score(panel)


# -- what is measured -----------------------------------------------------------------------------------------------

D = 6
VECTORS = torch.randn(5, D, generator=torch.Generator().manual_seed(0))
SPECS = tuple(ItemSpec("neutral", Readout(f"p{number}", 5, "function", "the")) for number in range(5))
WANTED = [0, 1, 3, 4]  # the third item belongs to another task


class Pair:
    """A verbalizer that is a reconstructor and a detector too. Its texts are numbers, and it reads them back."""

    def __init__(self, card: VerbalizerCard, sign: float = 1.0) -> None:
        self.card, self.sign = card, sign

    def verbalize(self, batch: ActivationBatch) -> list[str]:
        return ["" for _ in batch.vectors]

    def reconstruct(self, texts: Sequence[str], site: Site) -> Tensor:
        return torch.stack([self.sign * 100 * VECTORS[int(text)] for text in texts])

    def detect(self, batch: ActivationBatch) -> list[float]:
        return [float(vector.sum()) for vector in batch.vectors]


class Plain:
    def __init__(self, name: str, role: Any = "submitted") -> None:
        self.card = VerbalizerCard(name=name, role=role)

    def verbalize(self, batch: ActivationBatch) -> list[str]:
        return ["text"] * len(batch)


def transcribe(folder: Path, **said: tuple[Any, list[Verbalization]]) -> Transcript:
    study: Any = SimpleNamespace(site=Site("nobody", 3, D))
    labels = pd.DataFrame({"item_id": list("abcde")})
    verbalized = {name: Verbalized(texts, 0.0, 5, None, None) for name, (_, texts) in said.items()}
    roster = Roster({name: verbalizer for name, (verbalizer, _) in said.items()}, {})
    engine = LocalEngine(Store(folder))
    return Transcript(study, Activations(VECTORS, labels, SPECS), roster, verbalized, {}, engine)


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = torch.randn(60, D, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(off_manifold_detection, "unmoved_states", lambda study: cloud)
    monkeypatch.setattr(off_manifold_detection, "can_scan", lambda study: True)
    monkeypatch.setattr(off_manifold_detection, "measure_inversion", lambda _, specs, vectors, __: -vectors.sum(-1))
    monkeypatch.setattr(OffManifoldDetection, "items", lambda self, study: [SPECS[number] for number in WANTED])


def test_every_detector_has_a_value_for_the_tasks_items_and_for_no_other(tmp_path: Path) -> None:
    numbers = [Verbalization(str(number), logprob=-2.0 * (number + 1)) for number in range(5)]
    pair, turned = (Pair(VerbalizerCard(name=name), sign) for name, sign in (("pair", 1.0), ("turned", -1.0)))
    constant = Plain("constant", "floor")
    one_text = [Verbalization("0", logprob=-1.0)] * 5
    said = transcribe(tmp_path, pair=(pair, numbers), turned=(turned, numbers), constant=(constant, one_text))
    measured = TASK.measure(said)
    assert set(measured[OF_VECTORS]) == {"mahalanobis", "nearest_neighbours", "norm", "inversion_ratio"}
    assert set(measured["pair"]) == {"ar_cosine", "ar_cosine.constant_text", "text_logprob", "detect"}
    assert measured["constant"] == {}  # a floor says one thing, however likely
    for columns in measured.values():
        for values in columns.values():
            assert np.flatnonzero(np.isfinite(values)).tolist() == WANTED
    assert measured[OF_VECTORS]["norm"][WANTED] == pytest.approx(VECTORS.norm(dim=-1)[WANTED].numpy())
    assert measured[OF_VECTORS]["inversion_ratio"][WANTED] == pytest.approx(-VECTORS.sum(-1)[WANTED].numpy(), abs=1e-5)
    assert measured["pair"]["ar_cosine"][WANTED] == pytest.approx(0, abs=1e-6)
    assert measured["turned"]["ar_cosine"][WANTED] == pytest.approx(2)
    to_first = 1 - torch.cosine_similarity(VECTORS[:1], VECTORS)
    assert measured["pair"]["ar_cosine.constant_text"][WANTED] == pytest.approx(to_first[WANTED].numpy(), abs=1e-6)
    assert measured["pair"]["text_logprob"][WANTED] == pytest.approx([2, 4, 8, 10])
    assert measured["pair"]["detect"][WANTED] == pytest.approx(VECTORS.sum(-1)[WANTED].numpy(), abs=1e-5)


def test_a_subject_that_cannot_be_scanned_leaves_the_column_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(off_manifold_detection, "can_scan", lambda study: False)
    constant = Plain("constant", "floor")
    said = transcribe(tmp_path, constant=(constant, [Verbalization("0")] * 5))
    assert set(TASK.measure(said)[OF_VECTORS]) == {"mahalanobis", "nearest_neighbours", "norm"}


def test_a_text_is_no_more_surprising_for_being_longer() -> None:
    short, long = Verbalization("ten bytes.", logprob=-5.0), Verbalization("ten bytes." * 3, logprob=-15.0)
    assert measure_surprise([short, long]) == pytest.approx([0.5, 0.5])
    assert measure_surprise([Verbalization("", logprob=-1.0)]) == pytest.approx([1.0])


def test_who_gives_no_probabilities_has_no_surprise_and_a_failure_has_none() -> None:
    said, failed = Verbalization("ten bytes.", logprob=-5.0), Verbalization("", error="it broke")
    assert measure_surprise([said, failed]) == pytest.approx([0.5, math.nan], nan_ok=True)
    assert measure_surprise([said, Verbalization("ten bytes.")]) is None
    assert measure_surprise([said, Verbalization("ten bytes.", logprob=-math.inf)]) is None
    assert measure_surprise([failed]) is None
