"""docs/tasks/ says what the tasks' code does: questions, tables of metrics and columns are held to it.

A page's table of metrics is compared with what the task makes of a panel of noise, arm by arm, and (slowly) with the
result of a run of every task; its columns with those of that run's items.parquet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from nlabench.benchmark import arms, behaviour, inversion_detector
from nlabench.benchmark.behaviour import LEAST_DISTINCT_2, MOST_LOSS
from nlabench.benchmark.concepts import load_pack
from nlabench.benchmark.inversion_scan import Scanner
from nlabench.benchmark.panel import Panel
from nlabench.benchmark.records import GateRow, MetricRow, Result, SaidRow
from nlabench.benchmark.statistics import resample
from nlabench.benchmark.store import Payload
from nlabench.benchmark.study import Study, sketch_study
from nlabench.benchmark.subject import Prefix, Subject
from nlabench.benchmark.suites import QUICK, STANDARD, load_suite
from nlabench.benchmark.task import Task, known_tasks
from nlabench.benchmark.verbalizers.base import Role

from .conftest import EXAMPLES, ROOT, Bench, check_links

PAGES = ROOT / "docs" / "tasks"

#: Our own: an installed package may offer others.
TASKS = {name: task for name, task in known_tasks().items() if type(task).__module__.startswith("nlabench.")}

#: What stands in a page's names for any of the texts that a task scores in place of the verbalizer's own.
CONTROL = "CONTROL"


def read_page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def read_table(page: str, first: str) -> list[dict[str, str]]:
    """The rows of the page's table whose first column has this head, by head."""
    (table,) = re.findall(rf"^\| {re.escape(first)} \|.*\n\|[-|]+\|\n(?:\|.*\n)+", page, re.MULTILINE)
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


@dataclass(frozen=True)
class Cell:
    """One metric at one arm; compared: with another verbalizer or a control."""

    metric: str
    arm: str
    compared: bool


def tabulated(task: str) -> list[tuple[set[Cell], set[str]]]:
    """Each row of the page's metrics: its cells, and at which r they are ("null", "0", "grid")."""
    found = []
    for row in read_table(read_page(task), "metric"):
        named = list(arms.ARMS) if row["arm"] == "every arm" else quoted(row["arm"])
        cells = {Cell(metric, arm, row["versus"] != "–") for metric in quoted(row["metric"]) for arm in named}
        found.append((cells, set(row["r"].split(", "))))
    return found


def emitted(rows: list[MetricRow]) -> dict[Cell, set[str]]:
    """The same of metric rows, cell by cell."""
    found: dict[Cell, set[str]] = {}
    for row in rows:
        cell = Cell(with_control(row.metric), row.arm, row.versus is not None)
        found.setdefault(cell, set()).add({None: "null", 0.0: "0"}.get(row.r, "grid"))
    return found


def with_control(name: str) -> str:
    """A name whose control, if it has one, is written as pages write it."""
    base, _, control = name.partition(".")
    return f"{base}.{CONTROL}" if control else base


def columns_of(task: str) -> set[str]:
    """The columns that the page says the task leaves in items.parquet, without the task's name."""
    listed = read_page(task).partition("**Columns of items.parquet.**")[2].partition("\n\n")[0]
    assert listed, f"{task}: no columns"
    return {name.removeprefix(f"{task}.") for name in quoted(listed) if name.startswith(f"{task}.")}


# -- pages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_every_task_has_a_page_with_its_question_and_stands_in_the_list(task: Task) -> None:
    page = read_page(task.name)
    assert page.startswith(f"# {task.name}\n\n> {task.question}\n\n")
    (row,) = [row for row in read_table(read_page("README"), "task") if f"[{task.name}]({task.name}.md)" in row["task"]]
    assert row["question"] == task.question
    assert set(quoted(row["headline metric"])) <= {cell.metric for cells, _ in tabulated(task.name) for cell in cells}
    for paragraph in ("Items", "Metric", "Controls", "High and low", "What it cannot show", "Source"):
        assert f"\n**{paragraph}.**" in page, paragraph


def test_suites_run_the_tasks_that_the_list_says() -> None:
    listed = [row["task"].partition("]")[0].strip("[") for row in read_table(read_page("README"), "task")]
    assert QUICK.tasks == tuple(listed[:3])
    assert STANDARD.tasks == tuple(listed)
    assert load_suite(str(EXAMPLES / "every-task.toml")).tasks == tuple(listed)


def test_what_a_task_asks_is_said_where_it_is_a_question_of_its_own() -> None:
    for task in TASKS.values():
        asked = "the general question" if task.asks == TASKS["dose_response"].asks else f"*{task.asks}*"
        assert f"What is asked: {asked}" in " ".join(read_page(task.name).split()), task.name


def test_pages_are_half_a_page_long_and_their_links_lead_somewhere() -> None:
    for page in PAGES.glob("*.md"):
        assert page.read_text(encoding="utf-8").count("\n") <= 45, page.name
        check_links(page)


def test_the_page_on_what_steers_and_is_said_has_every_field_and_the_bounds_of_the_gate() -> None:
    page = read_page("steers-and-said")
    fields = {name for row in read_table(page, "field") for name in quoted(row["field"])}
    assert fields == set(GateRow.model_fields) | set(SaidRow.model_fields)
    assert f"at most {MOST_LOSS} nats" in page
    assert f"at least {LEAST_DISTINCT_2}" in page


# -- tables against the tasks' code ---------------------------------------------------------------------------------

ROLES: dict[str, Role] = {
    "constant": "floor", "probe-ceiling": "ceiling", "last-token": "reader", "mine": "submitted", "other": "baseline",
}  # fmt: skip


@pytest.fixture(scope="module")
def study(subject: Subject) -> Study:
    return sketch_study(subject, load_pack(), load_suite(str(EXAMPLES / "every-task.toml")))


def draw_panel(task: Task, study: Study) -> Panel:
    """A panel of noise over a task's items: scores, and the columns that its page says it measures."""
    rng = np.random.default_rng(0)
    items = pd.DataFrame(
        {
            "item_id": spec.item_id(0), "arm": spec.arm, "injection": spec.injection, "level": spec.level,
            "concept": spec.concept, "prompt": spec.readout.text_id, "position": spec.readout.index,
            "kind": spec.readout.kind, "word": spec.readout.word, "r": spec.r, "draw": spec.draw,
            "pair": f"{spec.pair.text_id}@{spec.pair.index}" if spec.pair else None, "outlier": False,
        }
        for spec in dict.fromkeys(task.items(study))
    )  # fmt: skip
    natural = {text: i for i, text in enumerate(sorted(items.loc[items["arm"] == "natural", "prompt"].unique()))}
    readout = {prompt.text.id: i for i, prompt in enumerate(study.readout_prompts)}
    items["prompt_number"] = items["prompt"].map({**natural, **readout})
    items["concept_number"] = items["concept"].map({name: i for i, name in enumerate(study.pack.names)})
    n_concepts, n_prompts, n = len(study.pack.names), len(study.readout_prompts), len(items)
    scores = rng.normal(size=(len(ROLES), n, n_concepts))
    scores[list(ROLES).index("probe-ceiling"), np.arange(n), items["concept_number"].fillna(0).astype(int)] += 9
    wide = task.name == "content_retention"
    columns = {
        column.replace(CONTROL, control): rng.uniform(0.1, 0.9, size=(n, n_prompts) if wide else n)
        for column in sorted(columns_of(task.name))
        for control in ("constant_text", "plain_state")
    }
    columns = {name: column + 9 if name.endswith("_mean") else column for name, column in columns.items()}  # sure harm
    return Panel(
        items=items,
        scores=scores,
        sets=[(name, "scorer") for name in ROLES],
        texts={name: [str(i) for i in rng.integers(9, size=n)] for name in ROLES},
        roles=ROLES,
        concepts=study.pack.names,
        families=study.pack.families,
        excluded={},
        weights=resample(n_concepts, n_prompts, 20),
        measured={"": columns, "mine": columns} if columns else {},
    )


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_the_metrics_of_a_page_are_those_that_the_task_makes_arm_by_arm(task: Task, study: Study) -> None:
    found, listed = emitted(task.score(draw_panel(task, study))), tabulated(task.name)
    assert set().union(*(cells for cells, _ in listed)) == found.keys()
    for cells, strengths in listed:
        assert strengths == set().union(*(found[cell] for cell in cells)), cells


# -- tables against a run -------------------------------------------------------------------------------------------


LENS = "careful-lens"


def scan_few_tokens(
    subject: Subject, preamble: Prefix, ids: tuple[int, ...], layer: int, targets: torch.Tensor
) -> Payload:
    """The inversion ratio's scan, of 200 tokens: of a whole vocabulary it takes minutes, for each prompt."""
    scanner, prefix = Scanner(subject, layer), subject.make_prefix(ids, layer, after=preamble)
    distances = scanner.distances(prefix, torch.arange(200), targets, shared=scanner.shares(prefix))
    found = distances.topk(2, largest=False)
    return Payload({"distances": found.values.numpy(), "tokens": found.indices.numpy()})


@pytest.fixture(scope="module")
def everything(bench: Bench) -> Result:
    """The result of every task on a verbalizer that can all that a verbalizer may."""
    with pytest.MonkeyPatch.context() as patch:
        # No page says what the gate's answers are, or which token a scan finds.
        patch.setattr(behaviour, "NEW_TOKENS", 8)
        patch.setattr(inversion_detector, "_scan_chunk", scan_few_tokens)
        bench.follow_here("bash run=abilities")
    return bench.result("abilities")


@pytest.mark.slow
@pytest.mark.parametrize("task", list(TASKS))
def test_a_run_leaves_the_metrics_and_the_columns_that_the_page_names(
    task: str, everything: Result, bench: Bench
) -> None:
    page, found = read_page(task), emitted(everything.select(task=task))
    listed = set().union(*(cells for cells, _ in tabulated(task)))
    assert found.keys() <= listed
    assert len(found) > 0.7 * len(listed)  # a share of what a run this small does not show has no controls
    columns = bench.items("abilities", LENS).columns
    measured = {name.removeprefix(f"{task}.") for name in columns if name.startswith(f"{task}.")}
    assert {with_control(name) for name in measured} == columns_of(task) - {"text_logprob"}  # a lens has none
    assert {name.partition(".")[2] for name in measured if "." in name} <= set(quoted(page))


@pytest.mark.slow
def test_samples_a_reject_option_and_a_second_reconstructor_are_found_by_themselves(
    everything: Result, bench: Bench
) -> None:
    record = everything.verbalizers[LENS]
    assert record.rerun_agreed == record.rerun_checked > 0  # the seed is the vector's own
    items = bench.items("abilities", LENS)
    assert set(items["samples"].map(len)) == {3}
    natural = items[(items["arm"] == "natural") & (items["kind"] == "function")]
    assert natural["self_consistency.within"].between(-1, 1).all()
    own = everything.select(verbalizer=LENS, arm="steered", r=2.0)
    assert {row.scorer for row in own if row.task == "off_manifold_detection"} == {"ar_cosine", "detect"}
    for task in ("reconstruction", "functional_round_trip"):
        assert "second_reconstructor" in {row.versus for row in everything.select(task=task, verbalizer=LENS)}
