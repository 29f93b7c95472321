"""The regression check on runs whose texts are planted, and its error rates where the truth is known."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as XML

import nlabench
import numpy as np
import pandas as pd
import pytest
from nlabench.benchmark.concepts import ConceptPack
from nlabench.benchmark.records import keep_estimates, metric_row, read_result, write_result
from nlabench.benchmark.statistics import (
    Clusters,
    Estimate,
    cluster_mean,
    intervals,
    macro_auroc,
    paired_difference,
)
from nlabench.benchmark.statistics.simulate import Truth, balanced_crossing, draw_population, draw_scores
from nlabench.cli import app
from nlabench.leaderboard.regression import Comparison, MetricCheck, find_power, find_verdicts
from nlabench.leaderboard.regression_reports import print_comparison, write_junit, write_markdown
from typer.testing import CliRunner

Write = Callable[..., Path]
Say = Callable[..., list[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_planted_run: Write, say_planted: Say) -> Path:
    """A baseline: a verbalizer that names the concept of nine items in ten."""
    return write_planted_run(tmp_path_factory.mktemp("baseline"), {"mine": say_planted(0.1)})


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory, write_planted_run: Write, say_planted: Say) -> Path:
    """The same, of one item in two."""
    return write_planted_run(tmp_path_factory.mktemp("worse"), {"mine": say_planted(0.5, seed=3)})


def blank_a_fifth(run: Path, folder: Path) -> Path:
    """The run with the texts of every fifth item of each arm blanked, and their scores as they were."""
    shutil.copytree(run, folder)
    items = pd.read_parquet(run / "items.parquet").sort_values(["arm", "level", "concept", "prompt"], ignore_index=True)
    items.loc[items.groupby(["arm", "level"]).cumcount() % 5 == 0, "text"] = ""
    items.to_parquet(folder / "items.parquet", index=False)
    return folder


# -- known answers --------------------------------------------------------------------------------------------------


def test_a_run_against_itself_passes_with_differences_of_exactly_zero(run: Path) -> None:
    found = nlabench.check(run, run / "result.json")
    assert [c.name for c in found.checks] == ["natural", "steered", "false_claims"]
    assert {(c.difference, c.low, c.high, c.verdict) for c in found.checks} == {(0.0, 0.0, 0.0, "pass")}
    assert all(0.8 < c.baseline < 1 for c in found.checks[:2])
    assert found.exit_code == 0


def test_with_the_texts_of_a_fifth_of_the_items_blanked_it_fails(
    run: Path, tmp_path: Path, planted_pack: ConceptPack
) -> None:
    blanked = blank_a_fifth(run, tmp_path / "blanked")
    assert nlabench.check(run, blanked, margin=0.02).verdict == "pass"  # the stored scores are of the old texts
    found = nlabench.check(run, blanked, margin=0.02, rescore=True, pack=planted_pack)
    assert {c.name: c.verdict for c in found.checks[:2]} == {"natural": "fail", "steered": "fail"}
    assert found.exit_code == 1


def test_the_differences_are_those_of_the_figures_that_the_results_record(run: Path, worse: Path) -> None:
    metrics = ["natural", "confabulation.false_claims:arm=neutral", "concept_identification.mrr:arm=steered,r=1.0"]
    found = nlabench.check(run, worse, metrics=metrics).checks
    kinds: list[dict[str, Any]] = [
        {"metric": "auroc_in_pairs", "arm": "natural"}, {"metric": "false_claims", "arm": "neutral"},
        {"metric": "mrr", "arm": "steered", "r": 1.0},
    ]  # fmt: skip
    for check, fields in zip(found, kinds, strict=True):
        before, after = (read_result(folder / "result.json").one(group=None, **fields) for folder in (run, worse))
        assert before is not None
        assert after is not None
        assert (check.baseline, check.candidate) == pytest.approx((before.value, after.value))
        better = -1 if check.lower_is_better else 1
        assert check.difference == pytest.approx(better * (after.value - before.value))  # type: ignore[operator]
    assert [c.lower_is_better for c in found] == [False, True, False]


def test_a_better_candidate_passes_and_a_rise_in_false_claims_does_not(
    run: Path, tmp_path: Path, write_planted_run: Write, say_planted: Say, planted_labels: pd.DataFrame
) -> None:
    better = write_planted_run(tmp_path / "better", {"mine": say_planted(0.0)})
    assert nlabench.check(run, better).checks[0].verdict == "pass"
    everything = " ".join(f"c{c}" for c in range(12))
    texts = [
        text if arm != "permuted" else f"{text} {everything}"
        for text, arm in zip(say_planted(0.1), planted_labels["arm"], strict=True)
    ]
    liar = write_planted_run(tmp_path / "liar", {"mine": texts})
    found = nlabench.check(run, liar, margin=0.1)
    assert [c.verdict for c in found.checks] == ["pass", "pass", "fail"]
    assert found.checks[2].candidate > found.checks[2].baseline
    assert found.checks[2].difference < 0


# -- error rates ----------------------------------------------------------------------------------------------------

MARGIN, N_CONCEPTS, N_PROMPTS, REPETITIONS = 0.05, 32, 8, 300


def simulate(before: float, after: float, *, noise: float, nested: bool) -> Estimate:
    """Paired differences [REPETITIONS] of two AUROCs whose truth is known.

    noise: the share of a score's variance between items that each of the two has to itself; the rest they share.
    """
    rng = np.random.default_rng(5)
    concept, prompt = balanced_crossing(N_CONCEPTS, N_PROMPTS, 4)
    prompt = np.arange(len(concept)) if nested else prompt
    truths = [Truth(auroc, concept=0.3, prompt=0 if nested else 0.2) for auroc in (before, after)]
    shared = replace(truths[0], noise=np.sqrt(1 - noise))
    population = draw_population(shared, REPETITIONS, N_CONCEPTS, N_PROMPTS, rng)
    common = draw_scores(shared, population, concept, prompt, rng, nested)
    estimates = []
    for truth in truths:
        scores = common + np.sqrt(noise) * rng.normal(size=common.shape)
        scores[:, np.arange(len(concept)), concept] += truth.signal(nested) - shared.signal(nested)
        clusters = Clusters(concept, prompt, nested=nested)
        estimates.append(macro_auroc(scores, clusters, n_prompts=None if nested else N_PROMPTS))
    return paired_difference(estimates[1], estimates[0])


@pytest.mark.parametrize("nested", [True, False])
def test_noise_below_the_margin_passes_in_at_least_95_percent(nested: bool) -> None:
    assert (find_verdicts(simulate(0.8, 0.8, noise=0.05, nested=nested), MARGIN) == "pass").mean() >= 0.95


@pytest.mark.parametrize("nested", [True, False])
def test_a_drop_of_twice_the_margin_is_found_as_often_as_is_printed(nested: bool) -> None:
    drop = simulate(0.8, 0.8 - 2 * MARGIN, noise=0.4, nested=nested)
    found, printed = (find_verdicts(drop, MARGIN) == "fail").mean(), find_power(drop, MARGIN).mean()
    assert 0.3 < printed < 0.95  # neither hopeless nor certain, so that the comparison says something
    assert found == pytest.approx(printed, abs=0.1)


@pytest.mark.parametrize("nested", [True, False])
def test_at_a_drop_of_the_margin_neither_verdict_comes_in_more_than_5_percent(nested: bool) -> None:
    verdicts = find_verdicts(simulate(0.8, 0.8 - MARGIN, noise=0.4, nested=nested), MARGIN)
    for verdict in ("pass", "fail"):
        assert (verdicts == verdict).mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / REPETITIONS)
    assert (verdicts == "cannot tell").mean() > 0.8


def shifted(by: float, n_concepts: int) -> Estimate:
    """A difference that is the same for every one of some concepts."""
    values = np.stack([np.full(n_concepts, 0.9 + by), np.full(n_concepts, 0.9)])
    both = cluster_mean(values, Clusters(np.arange(n_concepts), np.arange(n_concepts), nested=True))
    return paired_difference(both[0], both[1])


def test_a_drop_that_is_the_same_everywhere_is_bounded_by_the_number_of_units() -> None:
    assert find_verdicts(shifted(0.0, 3), MARGIN) == "pass"
    assert find_verdicts(shifted(-0.5, 32), MARGIN) == "fail"
    assert find_verdicts(shifted(-0.5, 6), MARGIN) == "cannot tell"
    assert np.isnan(find_power(shifted(0.0, 3), MARGIN))


def test_with_a_single_concept_nothing_can_be_told() -> None:
    assert find_verdicts(shifted(-0.5, 1), MARGIN) == "cannot tell"


# -- bad input ------------------------------------------------------------------------------------------------------


def change_items(run: Path, folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    shutil.copytree(run, folder)
    change(pd.read_parquet(run / "items.parquet")).to_parquet(folder / "items.parquet", index=False)
    return folder


def test_a_missing_or_a_foreign_item_is_named(run: Path, tmp_path: Path) -> None:
    item = pd.read_parquet(run / "items.parquet")["item_id"].iloc[3]
    fewer = change_items(run, tmp_path / "fewer", lambda items: items.drop(index=3))
    with pytest.raises(nlabench.BadInput, match=f"1 of the baseline's are not in the candidate and 0 .*{item}"):
        nlabench.check(run, fewer)

    def replace_one(items: pd.DataFrame) -> pd.DataFrame:
        items.loc[3, ["item_id", "prompt", "arm", "concept"]] = ["foreign", "p1", "gaussian", None]
        return items

    foreign = change_items(run, tmp_path / "foreign", replace_one)
    with pytest.raises(nlabench.BadInput, match=r"1 of the baseline's .* and 1 the other way round"):
        nlabench.check(run, foreign)
    with pytest.raises(nlabench.BadInput, match=r"0 of the baseline's .* 1 the other way round"):
        nlabench.check(fewer, run)


def test_runs_of_two_benchmarks_are_not_compared_and_what_differs_is_said(run: Path, tmp_path: Path) -> None:
    result = read_result(run / "result.json")
    suite = result.provenance.suite
    shutil.copytree(run, tmp_path / "other")

    def change(**provenance: Any) -> Path:
        changed = result.provenance.model_copy(update=provenance)
        write_result(result.model_copy(update={"provenance": changed}), tmp_path / "other" / "result.json")
        return tmp_path / "other"

    others: dict[str, dict[str, Any]] = {
        "suite: planted, version 2 in the baseline, planted, version 3": {"suite": {**suite, "version": "3"}},
        "strengths of the suite": {"suite": {**suite, "strengths": [0.1, 0.2]}},
        r"subject: planted \(0\) in the baseline, another \(1\) in the candidate": {
            "subject": "another",
            "subject_fingerprint": "1",
        },
        "layer: 2 in the baseline, 3 in the candidate": {"layer": 3},
        r"pack: planted \(.*\) in the baseline, planted \(private\)": {"pack_fingerprint": "private"},
        "version of confabulation: 1 in the baseline, None": {"tasks": {"concept_identification": "2"}},
    }
    for said, provenance in others.items():
        with pytest.raises(nlabench.BadInput, match=f"not of one benchmark.*{said}"):
            nlabench.check(run, change(**provenance))
    moved = {"suite": {**suite, "readers": []}, "pack": "moved", "subject": "./elsewhere", "device": "cuda"}
    assert nlabench.check(run, change(**moved)).verdict == "pass"


def test_other_directions_are_another_benchmark(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "other")
    result = read_result(run / "result.json")
    concepts = [result.concepts[0].model_copy(update={"length": 1.01}), *result.concepts[1:]]
    write_result(result.model_copy(update={"concepts": concepts}), tmp_path / "other" / "result.json")
    with pytest.raises(nlabench.BadInput, match=r"directions of 1 concepts \(such as 'c0'\)"):
        nlabench.check(run, tmp_path / "other")


def test_the_verbalizer_is_named_where_there_are_several(
    run: Path, tmp_path: Path, write_planted_run: Write, say_planted: Say
) -> None:
    two = write_planted_run(tmp_path / "two", {"new": say_planted(0.1), "other": say_planted(0.9)})
    with pytest.raises(nlabench.BadInput, match=r"has 2 verbalizers that could be meant: new, other\..*--verbalizer"):
        nlabench.check(run, two)
    assert nlabench.check(run, two, verbalizer="new").verdict == "pass"
    assert nlabench.check(two, two, verbalizer="other", baseline_verbalizer="new").verdict == "fail"
    with pytest.raises(nlabench.BadInput, match="The candidate has no verbalizer 'none'"):
        nlabench.check(run, two, verbalizer="none", baseline_verbalizer="mine")


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("auroc", "There is no metric 'auroc'. Name natural, steered, false_claims, or"),
        ("confabulation.true_claims:concept=c0", "There is no metric"),
        ("confabulation.truth", "confabulation has .*true_claims"),
        ("confabulation.false_claims", "fits 3 figures; expected one.*arm=neutral"),
        ("confabulation.false_claims:arm=permuted,r=0.7", "fits 0 figures"),
        ("reconstruction.fve", "The run has no task 'reconstruction'"),
    ],
)
def test_a_metric_that_is_not_there_or_not_alone_is_bad_input(run: Path, metric: str, said: str) -> None:
    with pytest.raises(nlabench.BadInput, match=said):
        nlabench.check(run, run, metrics=[metric])


def test_a_margin_is_not_negative(run: Path) -> None:
    for margin in (-0.1, float("nan")):
        with pytest.raises(nlabench.BadInput, match="The margin is"):
            nlabench.check(run, run, margin=margin)


# -- how it is shown ------------------------------------------------------------------------------------------------


def compare(*verdicts: str, name: str = "mine") -> Comparison:
    checks = [
        MetricCheck(
            name=f"metric {i}", metric="task.metric", baseline=0.8, candidate=0.7, lower_is_better=False,
            difference=-0.1, low=-0.2, high=0.0, margin=0.05, verdict=verdict, power=0.4, n_items=9, n_concepts=8,
            n_prompts=7,
        )
        for i, verdict in enumerate(verdicts)
    ]  # fmt: skip
    warnings = ("it failed on 3 items",)
    return Comparison(f"{name} (before)", f"{name} (after)", "a subject.", tuple(checks), warnings)


@pytest.mark.parametrize(
    ("verdicts", "whole", "code"),
    [
        (["pass", "pass"], "pass", 0),
        (["pass", "cannot tell"], "cannot tell", 3),
        (["cannot tell", "fail", "pass"], "fail", 1),
    ],
)
def test_one_failure_fails_the_whole_and_all_must_pass(verdicts: Sequence[str], whole: str, code: int) -> None:
    assert (compare(*verdicts).verdict, compare(*verdicts).exit_code) == (whole, code)


def test_junit_has_a_case_per_metric_with_what_cannot_be_told_skipped() -> None:
    root = XML.fromstring(write_junit(compare("pass", "fail", "cannot tell", "fail")))
    (suite,) = root
    for element in (root, suite):
        counts = {key: element.get(key) for key in ("tests", "failures", "errors", "skipped")}
        assert counts == {"tests": "4", "failures": "2", "errors": "0", "skipped": "1"}
    assert [case.get("name") for case in suite.iter("testcase")] == [f"metric {i}" for i in range(4)]
    assert [case.find("failure") is not None for case in suite] == [False, True, False, True]
    assert [case.find("skipped") is not None for case in suite] == [False, False, True, False]
    assert "a drop of 0.1 would be found in 40%" in suite[1].find("failure").get("message")  # type: ignore[union-attr]


def test_items_that_the_candidate_failed_on_are_shown_beside_the_verdict() -> None:
    for shown in (print_comparison(compare("pass")), write_markdown(compare("pass"))):
        assert "it failed on 3 items" in shown


def test_names_from_a_result_are_shown_and_do_nothing() -> None:
    name = "[bold]a|b`<script>\x00&"
    found = compare("fail", name=name)
    assert "a|b`<script>�&" in XML.fromstring(write_junit(found))[0].get("name")  # type: ignore[operator]
    summary = write_markdown(found)
    (line,) = [line for line in summary.splitlines() if "script" in line]
    assert line.count("`") % 2 == 0
    assert "|" not in line
    assert "[bold]a|b`<script>" in print_comparison(found)


def test_the_command_prints_the_table_writes_the_files_and_ends_with_the_verdicts_code(
    run: Path, worse: Path, tmp_path: Path
) -> None:
    for candidate, margin, code in ((run, "0.05", 0), (worse, "0.05", 1), (worse, "0.25", 3)):
        command = ["check", "--baseline", str(run), "--candidate", str(candidate), "--margin", margin]
        command += ["--metric", "natural", "--metric", "steered"]
        files = ["--junit", str(tmp_path / "junit.xml"), "--markdown", str(tmp_path / "summary.md")]
        done = CliRunner().invoke(app, [*command, *files])
        assert done.exit_code == code, done.output
        assert "natural" in done.output
        cases = XML.parse(tmp_path / "junit.xml").getroot().findall(".//testcase")
        assert [case.get("name") for case in cases] == ["natural", "steered"]
        assert (tmp_path / "summary.md").read_text(encoding="utf-8").count("\n| `") == 2


def test_an_estimate_is_kept_for_a_row_only_where_it_is_asked_for() -> None:
    fields = {"task": "t", "metric": "m", "verbalizer": "v", "scorer": "s", "arm": "natural"}
    estimate = cluster_mean(np.array([[0.1, 0.5, 0.6]]), Clusters(np.arange(3), np.arange(3), nested=True))
    with keep_estimates() as kept:
        metric_row(intervals(estimate)[0], **fields)
    metric_row(intervals(estimate)[0], **fields)
    assert len(kept) == 1
    assert float(kept[0].estimate.point) == pytest.approx(0.4)
