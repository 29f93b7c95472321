"""Functional round trip: whose vector comes back as it was is at 1, whose is the mean is at 0, whatever the arm."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from nlabench.benchmark.activations import ActivationBatch
from nlabench.benchmark.engine import LocalEngine, Progress
from nlabench.benchmark.extraction import Activations
from nlabench.benchmark.panel import Panel
from nlabench.benchmark.records import MetricRow
from nlabench.benchmark.roster import Roster
from nlabench.benchmark.round_trip import make_round_trips
from nlabench.benchmark.scored import make_panel
from nlabench.benchmark.statistics import resample
from nlabench.benchmark.store import Store
from nlabench.benchmark.study import Study
from nlabench.benchmark.transcript import OF_VECTORS, Measured, NamedReconstructor, Transcript
from nlabench.benchmark.verbalizers.base import Verbalization
from nlabench.benchmark.verbalizing import Verbalized
from nlabench.tasks.functional_round_trip import TASK

from .conftest import Coder

Floats = np.ndarray[Any, np.dtype[np.float64]]

CONCEPTS, PROMPTS, STRENGTHS = 6, 5, (0.3, 1.0)
SHARES = ("kl_closed", "loss_closed", "kl_closed_to_plain", "loss_closed_to_plain")


def make_items() -> pd.DataFrame:
    rows = []

    def add(arm: str, prompt: str, number: int, **more: object) -> None:
        rows.append(
            {
                "arm": arm, "injection": "none" if arm in ("natural", "neutral") else "readout", "level": "grid",
                "concept": None, "prompt": prompt, "position": 5, "kind": "mid", "word": "the", "r": 0.0, "pair": None,
                "prompt_number": number, **more,
            }
        )  # fmt: skip

    for c in range(CONCEPTS):
        for k in range(3):
            text, prompt = f"c{c}/natural/{k}", (c + 2 * k) % PROMPTS
            add("natural", text, c * 3 + k, concept=f"c{c}")
            add("steered", f"p{prompt}", prompt, concept=f"c{c}", level="matched", r=0.1 + c / 100, pair=f"{text}@5")
            for r in STRENGTHS:
                add("steered", f"p{prompt}", prompt, concept=f"c{c}", r=r)
    for p in range(PROMPTS):
        add("neutral", f"p{p}", p)
        add("neutral", f"p{p}", p, kind="function")  # another task's
        for r in STRENGTHS:
            add("permuted", f"p{p}", p, r=r)
    items = pd.DataFrame(rows)
    items["concept_number"] = items["concept"].map({f"c{c}": c for c in range(CONCEPTS)})
    return items


def plant(items: pd.DataFrame, **verbalizers: Mapping[str, Floats]) -> Panel:
    return Panel(
        items=items,
        scores=np.zeros((0, len(items), CONCEPTS)),
        sets=[],
        texts={},
        roles={},
        concepts=[f"c{c}" for c in range(CONCEPTS)],
        families=["one"] * CONCEPTS,
        excluded={"readout/function": {}},
        weights=resample(CONCEPTS, PROMPTS, 50, seed=0),
        measured={OF_VECTORS: of_vectors(items), **verbalizers},
    )


def of_vectors(items: pd.DataFrame) -> dict[str, Floats]:
    """Mean-ablation costs each item something else, and moving it costs more the further it is moved."""
    rng = np.random.default_rng(0)
    n, moved = len(items), items["injection"].eq("readout").to_numpy() * (0.2 + items["r"].to_numpy())
    original = rng.uniform(2, 4, n)
    found = {
        "kl_mean": rng.uniform(1, 3, n), "kl_plain_mean": rng.uniform(1, 3, n), "kl_plain_moved": moved,
        "kl.plain_state": moved, "loss.plain_state": original - moved / 10, "loss_original": original,
        "loss_mean": original + rng.uniform(0.2, 1, n),
    }  # fmt: skip
    return {name: np.where(items["kind"] == "mid", values, np.nan) for name, values in found.items()}


def closes(share: float | Floats, of: Mapping[str, Floats]) -> dict[str, Floats]:
    """What one measures of a vector that undoes a share of mean-ablation, against either run."""
    loss = of["loss_mean"] - share * (of["loss_mean"] - of["loss_original"])
    return {"kl": (1 - share) * of["kl_mean"], "kl_plain": (1 - share) * of["kl_plain_mean"], "loss": loss}


def suffixed(columns: Mapping[str, Floats], control: str) -> dict[str, Floats]:
    return {f"{name}.{control}": values for name, values in columns.items()}


def pick(rows: list[MetricRow], metric: str, **conditions: Any) -> list[MetricRow]:
    found = [r for r in rows if r.metric == metric and all(getattr(r, k) == v for k, v in conditions.items())]
    assert found, (metric, conditions)
    return found


ITEMS = make_items()
VECTORS = of_vectors(ITEMS)
CELLS = {("natural", "grid", None), ("neutral", "grid", None), ("steered", "matched", None)} | {
    (arm, "grid", r) for arm in ("steered", "permuted") for r in STRENGTHS
}


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0, -0.5])
def test_a_share_of_the_divergence_undone_is_that_share_in_every_arm(share: float) -> None:
    rows = TASK.score(plant(ITEMS, nla=closes(share, VECTORS)))
    for metric in ("kl_closed", "loss_closed"):
        found = pick(rows, metric)
        assert {(row.arm, row.level, row.r) for row in found} == CELLS
        assert [row.value for row in found] == pytest.approx([share] * len(found))
    to_plain = pick(rows, "kl_closed_to_plain")
    assert {row.arm for row in to_plain} == {"steered", "permuted"}
    assert [row.value for row in to_plain] == pytest.approx([share] * len(to_plain))
    assert {row.kind for row in rows} == {"mid"}


def test_an_item_weighs_as_much_as_there_is_to_undo() -> None:
    natural = np.flatnonzero(ITEMS["arm"] == "natural")
    kl_mean, own = VECTORS["kl_mean"].copy(), closes(0.0, VECTORS)
    kl_mean[natural], kl_mean[natural[0]] = 0.01, 10.0
    own["kl"] = kl_mean.copy()
    own["kl"][natural[0]] = 0.0
    panel = plant(ITEMS, nla=own)
    panel = Panel(**{**panel.__dict__, "measured": {OF_VECTORS: {**VECTORS, "kl_mean": kl_mean}, "nla": own}})
    (row,) = pick(TASK.score(panel), "kl_closed", arm="natural")
    assert row.value == pytest.approx(10 / (10 + 0.01 * (len(natural) - 1)))
    (scale,) = pick(TASK.score(panel), "kl_mean", arm="natural")
    assert scale.value == pytest.approx(kl_mean[natural].mean())


def test_a_control_that_does_as_well_leaves_no_lead_and_a_worse_one_does() -> None:
    noise = np.random.default_rng(1).normal(0, 0.05, len(ITEMS))
    own, less = closes(0.6 + noise, VECTORS), closes(0.2 + noise[::-1], VECTORS)
    nla = {**own, **suffixed(own, "constant_text"), **suffixed(less, "average_direction")}
    rows = TASK.score(plant(ITEMS, nla=nla))
    for metric in ("kl_closed", "loss_closed", "kl_closed_to_plain"):
        for row in pick(rows, f"{metric}_lead", versus="constant_text"):
            assert row.value == 0
        for row in pick(rows, f"{metric}_lead", versus="average_direction"):
            assert row.low is not None
            assert 0 < row.low < 0.4 < (row.high or 0)
        same = [row.value for row in pick(rows, f"{metric}.constant_text")]
        assert same == [row.value for row in pick(rows, metric)]


def test_a_text_that_tells_of_the_prompt_alone_closes_all_to_the_plain_run_and_does_as_the_plain_state_does() -> None:
    own = {
        "kl": np.where(ITEMS["injection"] == "readout", VECTORS["kl.plain_state"], 0.0),
        "kl_plain": np.zeros(len(ITEMS)),
        "loss": VECTORS["loss.plain_state"],
    }
    rows = TASK.score(plant(ITEMS, nla=own))
    for metric in ("kl_closed", "loss_closed"):
        assert [row.value for row in pick(rows, f"{metric}_to_plain")] == pytest.approx([1] * 5)
        leads = pick(rows, f"{metric}_lead", versus="plain_state")
        assert {row.arm for row in leads} == {"steered", "permuted"}
        assert [row.value for row in leads] == [0] * 5
    far, near = (pick(rows, "kl_closed", arm="steered", r=r)[0].value or 0 for r in (1.0, 0.3))
    assert far < near < 1


def test_where_mean_ablation_does_no_sure_harm_there_is_no_share_and_it_is_said() -> None:
    rng = np.random.default_rng(2)
    vectors = {**VECTORS, "loss_mean": VECTORS["loss_original"] + rng.normal(0.01, 1, len(ITEMS))}
    panel = plant(ITEMS, nla=closes(0.5, VECTORS))
    panel = Panel(**{**panel.__dict__, "measured": {**panel.measured, OF_VECTORS: vectors}})
    rows = TASK.score(panel)
    for row in pick(rows, "loss_closed", arm="natural"):
        assert row.value is None
        assert "no sure harm" in row.note
    assert pick(rows, "kl_closed", arm="natural")[0].value == pytest.approx(0.5)
    assert not [row for row in rows if row.metric == "loss_closed_gap"]


def test_the_gap_is_steered_less_natural_on_pairs_of_one_word() -> None:
    natural = (ITEMS["arm"] == "natural").to_numpy()
    jitter = np.random.default_rng(3).normal(0, 0.02, len(ITEMS))
    nla = closes(np.where(natural, 0.8, 0.3) + jitter, VECTORS)
    (gap,) = pick(TASK.score(plant(ITEMS, nla=nla)), "kl_closed_gap")
    assert gap.value == pytest.approx(-0.5, abs=0.03)
    assert (gap.high or 0) < -0.4
    assert gap.n_items == 2 * 3 * CONCEPTS
    odd = ITEMS.copy()
    odd.loc[odd["pair"] == "c0/natural/0@5", "word"] = "of"
    assert pick(TASK.score(plant(odd, nla=nla)), "kl_closed_gap")[0].n_items == gap.n_items - 2
    fewer = Panel(**{**plant(ITEMS, nla=nla).__dict__, "excluded": {"readout/function": {"c0": "noise"}}})
    assert pick(TASK.score(fewer), "kl_closed_gap")[0].n_concepts == CONCEPTS - 1


def test_without_items_that_text_follows_there_is_nothing_to_score() -> None:
    others = ITEMS[ITEMS["kind"] == "function"].reset_index(drop=True)
    assert TASK.score(plant(others, nla=closes(1.0, of_vectors(others)))) == []


# -- on the default subject -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def progress() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def transcript(
    small_study: Study,
    small_activations: Activations,
    tmp_path_factory: pytest.TempPathFactory,
    progress: list[Progress],
) -> Transcript:
    """Two whose texts are codes, for the vector in another scale and for the unmoved state; and an AR of the mean."""
    mean = small_study.neutral_states("reference", "function").mean(0)
    coders = [Coder("faithful", lambda vector: vector / 100), Coder("of-the-prompt")]
    batch = ActivationBatch(small_activations.vectors, small_study.site)
    said = {coder.card.name: coder.verbalize(batch) for coder in coders}
    for text, spec in zip(said["of-the-prompt"], small_activations.specs, strict=True):
        coders[1].book[text] = small_study.state(spec.readout)
    texts = {
        name: Verbalized([Verbalization(text) for text in found], 1.0, len(found), None, None)
        for name, found in said.items()
    }
    roster = Roster({coder.card.name: coder for coder in coders}, {})
    engine = LocalEngine(Store(tmp_path_factory.mktemp("store")), progress.append)
    evaluator: Any = SimpleNamespace(reconstruct=lambda texts, site: mean.expand(len(texts), -1))
    swapped = NamedReconstructor("mean", "mean", evaluator)
    return Transcript(small_study, small_activations, roster, texts, {}, engine, swapped)


@pytest.fixture(scope="module")
def measured(transcript: Transcript) -> Measured:
    return TASK.measure(transcript)


@pytest.fixture(scope="module")
def scored(transcript: Transcript, measured: Measured) -> list[MetricRow]:
    labels = transcript.activations.labels
    scores = {name: np.zeros((1, len(labels), len(transcript.study.pack.names))) for name in transcript.verbalized}
    kept = np.flatnonzero(~labels["outlier"].to_numpy())
    own = {name: {column: values[kept] for column, values in columns.items()} for name, columns in measured.items()}
    return TASK.score(Panel(**{**make_panel(transcript, scores, ["scorer"]).__dict__, "measured": own}))


@pytest.mark.slow
def test_who_gives_the_vector_back_in_any_scale_computes_the_same(scored: list[MetricRow]) -> None:
    found = pick(scored, "kl_closed", verbalizer="faithful")
    assert {row.arm for row in found} == {"natural", "neutral", "steered", "permuted"}
    for row in found:
        assert row.value == pytest.approx(1, abs=1e-4), row
    # What moving it did stands between it and the plain run: the more, the further it was moved.
    near, far = (
        pick(scored, "kl_closed_to_plain", verbalizer="faithful", arm="steered", level=level)[0].value or 0
        for level in ("matched", "grid")
    )
    assert far < near < 1


@pytest.mark.slow
def test_who_gives_the_means_direction_undoes_about_nothing(scored: list[MetricRow]) -> None:
    found = pick(scored, "kl_closed.second_reconstructor", verbalizer="faithful")
    assert all(abs(row.value or 1) < 0.15 for row in found), found
    for row in pick(scored, "kl_closed_lead", verbalizer="faithful", versus="second_reconstructor"):
        assert (row.value or 0) > 0.85, row


@pytest.mark.slow
def test_who_tells_of_the_prompt_alone_is_where_the_plain_state_is(scored: list[MetricRow]) -> None:
    for arm in ("steered", "permuted"):
        for row in pick(scored, "kl_closed_to_plain", verbalizer="of-the-prompt", arm=arm):
            assert row.value == pytest.approx(1, abs=0.03), row
        # Not exactly: it is put back in the length of the moved one.
        for row in pick(scored, "kl_closed_lead", verbalizer="of-the-prompt", arm=arm, versus="plain_state"):
            assert row.value == pytest.approx(0, abs=0.03), row


@pytest.mark.slow
def test_the_mean_itself_undoes_nothing_and_the_original_everything(
    transcript: Transcript, measured: Measured, tmp_path: Any
) -> None:
    study, activations = transcript.study, transcript.activations
    rows = np.flatnonzero((activations.labels["kind"] == "mid").to_numpy())[:3]
    own = activations.vectors[rows]
    mean = study.neutral_states("reference", "function").mean(0).expand_as(own)
    readouts = [activations.specs[row].readout for row in rows]
    found = make_round_trips(study, readouts, own, torch.stack([mean, own], 1), LocalEngine(Store(tmp_path)), "test")
    kl_mean = measured[OF_VECTORS]["kl_mean"][rows]
    assert 1 - found.kl[:, 0] / kl_mean == pytest.approx(0, abs=1e-12)
    assert found.kl[:, 1].max() < 1e-12


@pytest.mark.slow
def test_what_was_not_moved_has_its_own_run_for_the_plain_one_and_other_items_have_no_figures(
    transcript: Transcript, measured: Measured
) -> None:
    labels, of = transcript.activations.labels, measured[OF_VECTORS]
    mid = (labels["kind"] == "mid").to_numpy()
    unmoved = mid & labels["arm"].isin(["natural", "neutral"]).to_numpy()
    assert unmoved.any()
    assert np.array_equal(of["kl_mean"][unmoved], of["kl_plain_mean"][unmoved])
    assert of["kl_plain_moved"][unmoved].max() < 1e-12
    assert of["kl_plain_moved"][mid & ~unmoved].min() > 1e-4
    for columns in measured.values():
        for values in columns.values():
            assert np.array_equal(np.isfinite(values), mid)


@pytest.mark.slow
def test_round_trips_are_taken_from_the_store_the_second_time(
    transcript: Transcript, measured: Measured, progress: list[Progress]
) -> None:
    progress.clear()
    again = TASK.measure(transcript)
    assert progress
    assert sum(report.fresh for report in progress) == 0
    assert all(np.array_equal(again[n][c], measured[n][c], equal_nan=True) for n in measured for c in measured[n])


@pytest.mark.slow
def test_who_has_no_reconstructor_is_not_measured(transcript: Transcript) -> None:
    assert TASK.measure(Transcript(**{**transcript.__dict__, "roster": Roster({}, {})})) == {}
