"""The main job on the real subject, small: every path that a user's numbers can take gives the same numbers."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nlabench
import numpy as np
import pandas as pd
import pytest
import torch
from nlabench.benchmark import behaviour
from nlabench.benchmark.assets import cache_folder
from nlabench.benchmark.concepts import PURPOSES, Concept, ConceptPack, load_pack, write_pack
from nlabench.benchmark.exchange import read_export
from nlabench.benchmark.extraction import Activations
from nlabench.benchmark.records import Result, read_result
from nlabench.benchmark.rescoring import (
    SAME_TEXTS,
    find_changed_scores,
    find_discrepancies,
    rescore,
    score_texts_again,
)
from nlabench.benchmark.runner import Bench, RunSettings, set_up
from nlabench.benchmark.steering import unit
from nlabench.benchmark.stored_run import read_run
from nlabench.benchmark.study import Study
from nlabench.benchmark.verbalizers import patchscope
from nlabench.benchmark.verbalizers.base import VerbalizerCard
from nlabench.benchmark.verbalizers.registry import load_verbalizer

SUITE = """
base = "quick"
n_concepts = 5
natural_per_concept = 2
final_per_concept = 1
readout_prompts = 6
prompts_per_concept = 2
strengths = [0.3, 2.0]
upstream_strengths = [0.5]
upstream_pairs_per_concept = 1
gaussian_items = 6
gate_requests = 2
gate_strengths = [0.3]
gate_permuted_draws = 2
"""

pytestmark = pytest.mark.slow


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module", autouse=True)
def short_texts() -> Iterator[None]:
    """Answers and texts of a few tokens, in this process: writing them one after another is most of a run's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(behaviour, "NEW_TOKENS", 8)
        patch.setattr(patchscope, "NEW_TOKENS", 6)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of this module's own, with the assets of the machine's."""
    load_pack()
    nlabench.benchmark.assets.fetch_asset("smollm2-135m-instruct-q4_1")
    folder = tmp_path_factory.mktemp("cache")
    (folder / "assets").symlink_to(cache_folder() / "assets")
    before = os.environ.get("NLABENCH_CACHE")
    os.environ["NLABENCH_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["NLABENCH_CACHE"]
    else:
        os.environ["NLABENCH_CACHE"] = before


@pytest.fixture(scope="module")
def settings(cache: Path, thin_pack: ConceptPack) -> RunSettings:
    (cache / "small.toml").write_text(SUITE)
    write_pack(thin_pack, cache / "thin.jsonl")
    return RunSettings(suite=str(cache / "small.toml"), pack=str(cache / "thin.jsonl"))


@pytest.fixture(scope="module")
def result(settings: RunSettings, cache: Path) -> Result:
    found = nlabench.run(["logit-lens", "patchscope"], settings, out=cache / "first", say=quiet)
    shutil.copytree(cache / "store", cache / "store-of-the-first")
    return found


@pytest.fixture(scope="module")
def measured(settings: RunSettings, result: Result) -> tuple[Bench, Study, Activations]:
    bench = set_up(settings, say=quiet)
    return (bench, *bench.measure())


def numbers(result: Result, *verbalizers: str) -> list[tuple[object, ...]]:
    return [
        (row.task, row.metric, row.scorer, row.arm, row.injection, row.level, row.kind, row.r, row.group, row.versus,
         row.value, row.low, row.high)
        for row in result.metrics
        # A difference from another verbalizer is there only where that one ran too.
        if not verbalizers or (row.verbalizer in verbalizers and row.versus is None)
    ]  # fmt: skip


def assert_same_numbers(found: list[tuple[object, ...]], wanted: list[tuple[object, ...]]) -> None:
    """Equal rows; values equal to the last digit that scores are kept to (a rank that flips moves an AUROC by more)."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one[:10] == other[:10]
        assert one[10:] == pytest.approx(other[10:], abs=2e-5), one


def test_a_run_leaves_a_result_a_table_of_items_and_a_page(result: Result, cache: Path) -> None:
    assert read_result(cache / "first" / "result.json") == result
    items = pd.read_parquet(cache / "first" / "items.parquet")
    assert items.groupby("verbalizer").size().nunique() == 1
    assert set(items["verbalizer"]) == set(result.verbalizers)
    assert "patchscope" in (cache / "first" / "report.html").read_text()
    assert {a.arm for a in result.arms} == {
        "natural", "steered", "permuted", "random", "graft", "graft_concept", "neutral", "gaussian",
    }  # fmt: skip


def test_floor_ceiling_and_reader_run_beside_whatever_is_tested(result: Result) -> None:
    assert set(result.verbalizers) == {
        "constant", "probe-ceiling", "last-token", "logit-lens", "patchscope", "average-direction:patchscope",
        "permuted-texts:patchscope",
    }  # fmt: skip


def test_texts_do_not_depend_on_the_other_items_of_a_batch(result: Result) -> None:
    for name, verbalizer in result.verbalizers.items():
        if verbalizer.rerun_checked:
            assert verbalizer.rerun_agreed == verbalizer.rerun_checked, name


def test_a_second_run_takes_everything_from_the_store(settings: RunSettings, result: Result, cache: Path) -> None:
    fresh: dict[str, int] = {}
    again = nlabench.run(
        ["logit-lens", "patchscope"], settings, out=cache / "second", say=quiet,
        report=lambda p: fresh.update({p.stage: p.fresh}),
    )  # fmt: skip
    computed = [stage for stage, n in fresh.items() if n]
    assert computed
    assert all(stage.startswith(("scoring with", "statistics of")) for stage in computed), computed  # are never stored
    assert numbers(again) == numbers(result)


def test_every_number_follows_from_the_two_files_of_a_run(result: Result, cache: Path) -> None:
    stored = read_run(cache / "first")
    assert rescore(stored) == result
    again = score_texts_again(stored)
    assert find_changed_scores(stored, again) == []
    assert find_discrepancies(result, rescore(again), SAME_TEXTS) == []


def test_a_second_run_is_no_regression_and_one_with_blank_texts_is_worse(
    settings: RunSettings, result: Result, cache: Path
) -> None:
    nlabench.run(["logit-lens", "patchscope"], settings, out=cache / "third", say=quiet)
    same = nlabench.check(cache / "first", cache / "third", verbalizer="patchscope")
    assert {(check.difference, check.verdict) for check in same.checks} == {(0.0, "pass")}
    items = pd.read_parquet(cache / "third" / "items.parquet").sort_values("item_id", ignore_index=True)
    items.loc[items.groupby(["verbalizer", "arm", "level"]).cumcount() % 5 == 0, "text"] = ""
    items.to_parquet(cache / "third" / "items.parquet", index=False)
    blank = nlabench.check(cache / "first", cache / "third", verbalizer="probe-ceiling", rescore=True)
    assert all(check.difference < 0 and check.verdict != "pass" for check in blank.checks[:2])


def test_the_random_arm_moves_as_far_as_the_steered_arm(measured: tuple[Bench, Study, Activations]) -> None:
    labels = measured[2].labels
    at = labels[(labels["level"] == "grid")]
    for injection, group in at[at["arm"].isin(["steered", "random"])].groupby("injection"):
        for r, cell in group.groupby("r"):
            means = cell.groupby("arm")["displacement"].mean()
            tolerance = 1e-5 if injection == "readout" else 0.15  # upstream: the mean over *all* concepts per prompt
            assert means["random"] == pytest.approx(means["steered"], rel=tolerance), (injection, r)


def test_a_full_graft_is_the_natural_state_itself(measured: tuple[Bench, Study, Activations]) -> None:
    _, study, activations = measured
    labels = activations.labels
    for row in np.flatnonzero(((labels["arm"] == "graft_concept") & (labels["level"] == "full")).to_numpy()):
        text, position = labels["pair"].iloc[row].split("@")
        natural = next(s for r, s in study.readings.at.items() if (r.text_id, r.index) == (text, int(position)))
        assert (activations.vectors[row] == natural).all()


def test_steered_items_are_token_matched_with_their_natural_partner(measured: tuple[Bench, Study, Activations]) -> None:
    labels = measured[2].labels
    word = dict(zip(labels["prompt"] + "@" + labels["position"].astype(str), labels["word"], strict=True))
    matched = labels[(labels["arm"] == "steered") & (labels["level"] == "matched") & (labels["kind"] == "function")]
    assert len(matched)
    assert all(word[pair] == own for pair, own in zip(matched["pair"], matched["word"], strict=True))


def test_matched_items_hold_the_evidence_of_their_probe_texts(measured: tuple[Bench, Study, Activations]) -> None:
    _, study, activations = measured
    labels = activations.labels
    matched = labels[(labels["arm"] == "steered") & (labels["level"] == "matched") & (labels["injection"] == "readout")]
    at_function = matched[matched["kind"] == "function"]
    neutral = study.neutral_states("reference", "function")
    gains, wanted = [], []
    for concept, group in at_function.groupby("concept"):
        direction = study.directions[concept].vector
        rest = float((unit(neutral) @ direction).mean())
        gains.append(group["evidence"].mean() - rest)
        wanted.append(study.matched["readout", "function"][concept].natural)
    assert np.mean(gains) == pytest.approx(np.mean(wanted), abs=0.03)


def test_an_export_is_blind(settings: RunSettings, result: Result, cache: Path) -> None:
    file = nlabench.export_activations(settings, cache / "blind", say=quiet)
    table = pd.read_parquet(file)
    assert list(table.columns) == ["item_id", "activation_vector", "subject", "layer", "d_model"]
    assert table["item_id"].is_monotonic_increasing  # ordered by an opaque id: shuffled
    everything = file.read_bytes() + b"".join(p.name.encode() for p in file.parent.iterdir())
    for name in load_pack().names:
        assert name.encode() not in everything


def test_texts_that_come_back_score_as_in_process(settings: RunSettings, result: Result, cache: Path, measured) -> None:
    run = cache / "blind"
    ids, batch = read_export(nlabench.export_activations(settings, run, say=quiet))
    elsewhere = load_verbalizer("patchscope", measured[1])
    texts = elsewhere.verbalize(batch)
    lines = [json.dumps({"item_id": i, "text": t.text}) for i, t in zip(ids, texts, strict=True)]
    (run / "texts.jsonl").write_text("\n".join(reversed(lines)))
    scored = nlabench.score_file(run, run / "texts.jsonl", VerbalizerCard(name="theirs"), say=quiet)
    for theirs, ours in (("theirs", "patchscope"), ("average-direction:theirs", "average-direction:patchscope")):
        assert_same_numbers(numbers(scored, theirs), numbers(result, ours))
    assert scored.verbalizers["theirs"].rerun_checked is None


def test_a_verbalizer_that_is_told_the_labels_reaches_the_ceiling_and_beyond(
    settings: RunSettings, cache: Path, measured: tuple[Bench, Study, Activations]
) -> None:
    _, study, activations = measured
    described = dict(zip(study.pack.names, study.pack.descriptions, strict=True))
    secret = {
        tuple(v.tolist()): described.get(c)
        for v, c in zip(activations.vectors, activations.labels["concept"], strict=True)
    }

    def cheat(vectors: list) -> list[str]:
        return [secret.get(tuple(v.tolist())) or "A sentence." for v in vectors]

    cheated = nlabench.run([cheat], settings, out=cache / "cheat", say=quiet)
    for row in cheated.select(task="concept_identification", metric="auroc", verbalizer="cheat", group=None):
        assert row.value is not None
        assert row.value > 0.97, row
    assert all(
        row.value == 0 or row.value is None
        for row in cheated.select(metric="false_claims_over_neutral", verbalizer="cheat")
    )


def test_a_verbalizer_that_fails_on_some_items_is_scored_with_empty_texts(
    settings: RunSettings, cache: Path, result: Result
) -> None:
    def picky(vectors: list) -> list[str]:
        if any(int(v.norm()) % 3 == 0 for v in vectors):
            raise RuntimeError("out of luck")
        return ["a sentence about the sea"] * len(vectors)

    found = nlabench.run([picky], settings, out=cache / "picky", say=quiet).verbalizers["picky"]
    items = pd.read_parquet(cache / "picky" / "items.parquet").query("verbalizer == 'picky'")
    failed = items["norm"].astype(int) % 3 == 0
    assert found.n_failed == failed.sum() > 0
    assert (items.loc[failed, "text"] == "").all()
    assert "RuntimeError: out of luck" in found.first_error
    assert any("failed on" in warning for warning in found.warnings)


def test_a_verbalizer_that_fails_on_all_items_is_an_error(settings: RunSettings, cache: Path, result: Result) -> None:
    def broken(vectors: list) -> list[str]:
        raise RuntimeError("no weights")

    with pytest.raises(nlabench.BadInput, match=r"'broken' failed on all .* RuntimeError: no weights"):
        nlabench.run([broken], settings, out=cache / "broken", say=quiet)
    assert not (cache / "broken" / "result.json").exists()


def shuffle_labels(pack: ConceptPack) -> ConceptPack:
    """The same texts, each under a random concept (their purposes kept)."""
    rng = np.random.default_rng(1)
    pools = {p: [t for c in pack.concepts for t in c.texts[p]] for p in PURPOSES}
    shuffled = {p: [pools[p][i] for i in rng.permutation(len(pools[p]))] for p in PURPOSES}
    concepts = []
    for number, concept in enumerate(pack.concepts):
        texts = {}
        for p in PURPOSES:
            size = len(concept.texts[p])
            mine = shuffled[p][number * size : (number + 1) * size]
            texts[p] = tuple(type(t)(f"{concept.name}/{p}/{k}", t.text, t.form) for k, t in enumerate(mine))
        concepts.append(Concept(concept.name, concept.title, concept.description, concept.family, None, texts))
    return ConceptPack("shuffled", tuple(concepts), pack.neutral)


def test_with_labels_shuffled_before_everything_no_metric_leaves_chance(
    settings: RunSettings, thin_pack: ConceptPack, cache: Path
) -> None:
    # More items than elsewhere: the fewer there are, the farther from chance is still within chance.
    more = SUITE.replace("n_concepts = 5", "n_concepts = 8").replace(
        "natural_per_concept = 2", "natural_per_concept = 3"
    )
    (cache / "more.toml").write_text(more)
    larger = dataclasses.replace(settings, suite=str(cache / "more.toml"))
    pack = shuffle_labels(thin_pack.select(8))
    found = nlabench.run(["nearest-text", "logit-lens"], larger, out=cache / "shuffled", pack=pack, say=quiet)
    checked = 0
    for row in found.metrics:
        chance = {"auroc": 0.5, "auroc_within_family": 0.5, "auroc_against_permuted": 0.5, "auroc_gap": 0.0}.get(
            row.metric
        )
        if chance is None or row.group or row.value is None or row.low is None or row.high is None:
            continue
        spread = (row.high - row.low) / 4
        assert abs(row.value - chance) < 4.5 * spread + 0.05, row
        checked += 1
    assert checked > 100


def test_killed_at_any_moment_a_run_resumes_to_the_same_numbers(
    settings: RunSettings, result: Result, cache: Path, tmp_path: Path
) -> None:
    home = tmp_path / "cache"
    home.mkdir()
    (home / "assets").symlink_to((cache / "assets").resolve())
    command = [
        sys.executable, "-m", "nlabench", "run", "--suite", settings.suite, "--pack", settings.pack,
        "--out", str(tmp_path / "run"), "--verbalizer", "logit-lens",
    ]  # fmt: skip
    # The same number of threads as the undisturbed run in this process: sums are split among them.
    threads = str(torch.get_num_threads())
    environment = {**os.environ, "NLABENCH_CACHE": str(home), "OMP_NUM_THREADS": threads}
    kills = 0
    for stage in ("readings", "behaviour", "texts"):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd=tmp_path)
        deadline = time.monotonic() + 200
        while not list((home / "store" / stage).glob("*/*.safetensors")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        assert not (tmp_path / "run" / "result.json").exists()
    assert kills == 3
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, cwd=tmp_path, check=True)
    resumed = read_result(tmp_path / "run" / "result.json")
    assert "logit-lens" in resumed.verbalizers
    for name in resumed.verbalizers.keys() & result.verbalizers.keys():
        assert_same_numbers(numbers(resumed, name), numbers(result, name))


def test_a_damaged_store_is_noticed_and_made_again(settings: RunSettings, result: Result, cache: Path) -> None:
    copy = cache.parent / "damaged"
    shutil.copytree(cache / "store-of-the-first", copy / "store")
    (copy / "assets").symlink_to((cache / "assets").resolve())
    stages = sorted((copy / "store").iterdir())
    assert {"behaviour", "readings", "texts", "upstream"} <= {stage.name for stage in stages}
    for number, stage in enumerate(stages):
        file = min(stage.rglob("*.safetensors"))
        content = bytearray(file.read_bytes())
        if number % 2:
            content[-1] ^= 1
        else:
            del content[len(content) // 2 :]
        file.write_bytes(content)
    said: list[str] = []
    os.environ["NLABENCH_CACHE"] = str(copy)
    try:
        again = nlabench.run(["logit-lens", "patchscope"], settings, out=copy / "again", say=said.append)
    finally:
        os.environ["NLABENCH_CACHE"] = str(cache)
    assert numbers(again) == numbers(result)
    assert any("damaged" in line for line in said)
    assert any("cannot be read" in line for line in said)
