"""Facts about the report's sections of single tasks: they are there where their task ran, and say what its rows say.

The numbers here are made up for the tests; they are nobody's result.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from nlabench.benchmark.records import GateRow, MetricRow, Result, SaidRow
from nlabench.benchmark.report.cells import gather
from nlabench.benchmark.report.information import privileged_information
from nlabench.benchmark.report.sections import SECTIONS
from nlabench.benchmark.report.shown import in_reading_order
from nlabench.benchmark.verbalizers.asking import QUESTION
from playwright.sync_api import Browser, Page

from .test_report import (
    CONCEPTS,
    HOSTILE,
    make_arm,
    make_gate,
    make_items,
    make_metrics,
    make_result,
    make_verbalizer,
    open_report,
    overflow,
    pick,
    read_data,
    render,
    strip_scripts,
)

MOVED = ("steered", "permuted", "random", "graft")
CONTROLS = ("constant_text", "average_direction", "other_items_text")
TASKS = {
    "content": "content_retention", "information": "privileged_information", "reconstruction": "reconstruction",
    "round_trip": "functional_round_trip", "detection": "off_manifold_detection", "consistency": "self_consistency",
}  # fmt: skip
CHARTS = (
    "content-charts", "information-charts", "reconstruction-charts", "displacement-charts", "round-trip-chart",
    "detection-charts", "consistency-charts",
)  # fmt: skip


def row(task: str, metric: str, value: float | None, **fields: Any) -> MetricRow:
    around = {} if value is None else {"low": value - 0.1, "high": value + 0.1}
    start: dict[str, Any] = {"verbalizer": "mine", "scorer": "none", "arm": "natural", "n_items": 6, "n_prompts": 3}
    note = "not defined" if value is None else ""
    return MetricRow(**{**start, "task": task, "metric": metric, "value": value, "note": note, **around, **fields})


def grid(*arms: str, injection: str = "readout") -> list[dict[str, Any]]:
    return [{"arm": arm, "injection": injection, "r": r} for arm in arms for r in (0.3, 1.0)]


UNMOVED: list[dict[str, Any]] = [{"arm": "natural"}, {"arm": "neutral"}]
MATCHED: dict[str, Any] = {"arm": "steered", "injection": "readout", "level": "matched"}


def with_controls(task: str, metric: str, own: float, controls: tuple[str, ...], **cell: Any) -> list[MetricRow]:
    """A figure with its controls', each 0.2 lower than the one before, and the leads over them."""
    rows = [row(task, metric, own, **cell)]
    for number, control in enumerate(controls, start=1):
        rows.append(row(task, f"{metric}.{control}", own - 0.2 * number, **cell))
        rows.append(row(task, f"{metric}_lead", 0.2 * number, versus=control, **cell))
    return rows


def make_task_rows(task: str) -> list[MetricRow]:
    rows: list[MetricRow] = []
    if task == "content_retention":
        for verbalizer in ("mine", "last-token", "constant"):
            for scorer in ("embedding", "independent-embedding"):
                who = {"verbalizer": verbalizer, "scorer": scorer}
                rows.append(row(task, "auroc", 0.8, **who, arm="neutral", r=0.0))
                for cell in grid(*MOVED) + grid("steered", injection="upstream"):
                    rows.append(row(task, "auroc", 0.8 - cell["r"] / 5, **who, **cell))
                    rows.append(row(task, "auroc_lost", cell["r"] / 5, **who, **cell))
                rows += [row(task, "auroc_gap", -0.05, **who, **{**cell, "arm": "steered-permuted"})
                         for cell in grid("steered")]  # fmt: skip
    elif task == "privileged_information":
        for scorer in ("strict", "embedding"):
            for verbalizer, auroc in (("mine", 0.7), ("constant", 0.5), ("last-token", 0.55), ("prompt-reader", 0.9)):
                who = {"verbalizer": verbalizer, "scorer": scorer}
                for cell in [UNMOVED[0], *grid("steered")]:
                    reads = verbalizer in ("last-token", "prompt-reader") and cell["arm"] == "steered"
                    rows.append(row(task, "auroc_same_tokens", 0.5 if reads else auroc, **who, **cell))
                    for reader, theirs in (("last-token", 0.55), ("prompt-reader", 0.9)):
                        over = auroc - (0.5 if cell["arm"] == "steered" else theirs)
                        rows.append(row(task, "information_over_text", over, versus=reader, **who, **cell))
                rows += [row(task, "told_from_neutral", 0.6, **who, **cell) for cell in grid("steered")]
    elif task == "reconstruction":
        headline = (*CONTROLS, "quotes_stripped", "paraphrased", "second_reconstructor")
        for metric in ("fve", "fve_over_mean", "fve_over_rock", "cosine"):
            rows += with_controls(task, metric, 0.4, headline, **UNMOVED[0])
            rows += with_controls(task, metric, 0.3, headline, **MATCHED)
            for cell in [UNMOVED[1], {"arm": "gaussian"}, *grid(*MOVED)]:
                rows += with_controls(task, metric, 0.2, CONTROLS, **cell)
        for cell in grid(*MOVED):
            rows += with_controls(task, "fve_unmoved", 0.1, CONTROLS, **cell)
            rows += with_controls(task, "displacement_recovered", 0.3, CONTROLS, **cell)
    elif task == "functional_round_trip":
        for cell in [*UNMOVED, MATCHED, *grid("steered", "permuted")]:
            mid = {**cell, "kind": "mid"}
            plain = ("plain_state",) if cell.get("injection") else ()
            for metric in ("kl_closed", "loss_closed"):
                rows += with_controls(task, metric, 0.4, (*CONTROLS, *plain), **mid)
            if plain:
                rows += with_controls(task, "kl_closed_to_plain", 0.6, CONTROLS, **mid)
            rows += [row(task, metric, 1.2, **mid) for metric in ("kl", "kl_mean", "loss", "loss_mean")]
        rows.append(row(task, "kl_closed_gap", -0.12, **{**MATCHED, "arm": "steered-natural", "kind": "mid"}))
    elif task == "off_manifold_detection":
        for verbalizer, scorer, controls in (("none", "norm", ()), ("mine", "ar_cosine", CONTROLS)):
            who = {"verbalizer": verbalizer, "scorer": scorer}
            rows.append(row(task, "auroc", 0.5, **who, arm="neutral", r=0.0))
            rows.append(row(task, "auroc", 0.6, **who, arm="natural"))
            for cell in grid(*MOVED) + grid("steered", injection="upstream"):
                rows.append(row(task, "auroc_over_neutral", 0.2, **who, **cell))
                rows += with_controls(task, "auroc", 0.7, controls, **who, **cell)
            rows += [row(task, "monotonicity", 0.9, **who, arm=arm, injection="readout") for arm in MOVED]
    elif task == "self_consistency":
        for cell in [*UNMOVED, {"arm": "gaussian"}, *grid("steered", "permuted")]:
            rows += [row(task, metric, 0.3, **{**cell, "scorer": "embedding"})
                     for metric in ("agreement", "agreement_over_others")]  # fmt: skip
    return rows


def make_saying(concept: str, r: float, *, said: bool, verbalizer: str = "mine") -> SaidRow:
    return SaidRow(
        verbalizer=verbalizer, scorer="embedding", concept=concept, r=r, score=1.5, permuted=0.2, p=0.01, q=0.03,
        said=said, n_prompts=2,
    )  # fmt: skip


def make_full(*, null: bool = False) -> Result:
    """A result of every task. joy steers at both strengths, the ocean at 1; mine says joy and legalese at 1."""
    rows = [found for task in TASKS.values() for found in make_task_rows(task)]
    if null:
        rows = [found.model_copy(update={"value": None, "low": None, "high": None}) for found in rows]
    result = make_result(make_metrics(null=null) + rows)
    gate: list[GateRow] = [
        make_gate(name, r).model_copy(update={"steers": name == "joy" or (name == "ocean" and r == 1.0)})
        for name in CONCEPTS
        for r in (0.3, 1.0)
    ]
    said = [make_saying(name, r, said=r == 1.0 and name != "ocean") for name in CONCEPTS for r in (0.3, 1.0)]
    said += [make_saying(name, 1.0, said=True, verbalizer="probe-ceiling") for name in CONCEPTS]
    said += [make_saying(name, 1.0, said=False, verbalizer="constant") for name in CONCEPTS]
    verbalizers = {**result.verbalizers, "prompt-reader": make_verbalizer("prompt-reader", "reader")}
    return result.model_copy(update={"gate": gate, "said": said, "verbalizers": verbalizers})


def rename(result: Result, names: dict[str, str]) -> Result:
    """The result with verbalizers and detectors of other names, and hostile titles of concepts."""

    def renamed(of: MetricRow) -> MetricRow:
        who = {"verbalizer": names.get(of.verbalizer, of.verbalizer), "versus": names.get(of.versus or "", of.versus)}
        metric, dot, control = of.metric.partition(".")
        scorer = names.get(of.scorer, of.scorer) if of.task == "off_manifold_detection" else of.scorer
        return of.model_copy(update={**who, "scorer": scorer, "metric": metric + dot + names.get(control, control)})

    said = [of.model_copy(update={"verbalizer": names.get(of.verbalizer, of.verbalizer)}) for of in result.said]
    return result.model_copy(
        update={
            "metrics": [renamed(of) for of in result.metrics],
            "verbalizers": {names.get(name, name): record for name, record in result.verbalizers.items()},
            "said": said,
            "concepts": [
                of.model_copy(update={"title": f"{of.title}{HOSTILE['script']}", "family": HOSTILE["image"]})
                for of in result.concepts
            ],
        }
    )


# Which sections there are


def section_ids(page: str) -> set[str]:
    return set(re.findall(r'<section id="([^"]+)"', strip_scripts(page)))


def linked_ids(page: str) -> set[str]:
    bar = re.search(r'<nav class="bar".*?</nav>', page, re.S)
    assert bar is not None
    return set(re.findall(r'href="#([^"]+)"', bar[0]))


def test_a_run_of_other_tasks_has_none_of_the_sections() -> None:
    page = render(make_result(), make_items())
    ids = {section.name.replace("_", "-") for section in SECTIONS}
    assert not ids & section_ids(page)
    assert linked_ids(page) == section_ids(page)
    assert 'id="said-picture"' not in page


@pytest.mark.parametrize("name", TASKS)
def test_a_section_is_there_where_its_task_ran(name: str) -> None:
    page = render(make_result(make_task_rows(TASKS[name])), make_items())
    sections = {section.name.replace("_", "-") for section in SECTIONS}
    assert sections & section_ids(page) == {name.replace("_", "-")}
    assert linked_ids(page) == section_ids(page)


# What the page's data say


def test_difference_of_two_arms_stands_in_the_first_one_s_cell() -> None:
    rows = [row("t", "auroc", 0.7, **grid("steered")[0]), row("t", "auroc_gap", -0.1, arm="steered-permuted",
            injection="readout", r=0.3, n_items=99)]  # fmt: skip
    cells = gather(rows)
    assert len(cells) == 1
    assert cells[0]["figures"]["auroc_gap"][""]["v"] == -0.1
    assert cells[0]["n"] == 6  # of the arm, not of both


def test_own_figure_controls_and_leads_are_kept_apart() -> None:
    (cell,) = gather(with_controls("t", "fve", 0.4, CONTROLS, arm="natural"))
    assert cell["figures"]["fve"][""]["v"] == 0.4
    assert cell["figures"]["fve"]["average_direction"]["v"] == 0.0
    assert cell["leads"]["fve"]["average_direction"]["v"] == 0.4


def test_information_is_over_the_strongest_reader_of_the_cell() -> None:
    data = privileged_information(make_full())
    assert data is not None
    scorer = next(of for of in data["scorers"] if of["scorer"] == "embedding")
    assert [of["verbalizer"] for of in scorer["readers"]] == ["last-token", "prompt-reader"]
    mine = next(of for of in scorer["verbalizers"] if of["verbalizer"] == "mine")["cells"]
    natural = next(cell for cell in mine if cell["arm"] == "natural")
    assert natural["strongest"] == ["prompt-reader"]
    assert natural["over"]["v"] == pytest.approx(-0.2)
    steered = next(cell for cell in mine if cell["arm"] == "steered")
    assert steered["strongest"] == ["last-token", "prompt-reader"]  # they tie: the same words


def test_crossing_opens_where_most_directions_steer() -> None:
    said = read_data(render(make_full(), make_items()))["said"]
    assert said["start"] == 1.0
    at = next(at for of in said["crossings"] if of["verbalizer"] == "mine" for at in of["at"] if at["r"] == 1.0)
    assert at["cells"] == [[0], [1], [2], []]  # joy; the ocean; legalese


def test_answers_to_one_task_s_question_are_not_the_page_s_texts() -> None:
    items = make_items().assign(question=None)
    mine = items["verbalizer"] == "mine"
    items.loc[mine, "question"] = QUESTION
    answers = items[mine].assign(question="What happens?", text="an answer to another question")
    texts = pick(make_result(), pd.concat([items, answers], ignore_index=True))["texts"]
    assert "an answer to another question" not in texts
    assert texts == pick(make_result(), make_items())["texts"]


def test_twenty_thousand_rows_are_gathered_in_a_moment() -> None:
    result = make_full()
    rows = result.metrics * (1 + 20_000 // len(result.metrics))
    start = time.process_time()
    for section in SECTIONS:
        assert section.collect(result.model_copy(update={"metrics": rows})) is not None
    assert time.process_time() - start < 2
    assert in_reading_order(result.verbalizers)[0] == "mine"


# In a browser


@functools.cache
def full_page() -> str:
    return render(make_full(), make_items())


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    yield from open_report(browser, full_page(), tmp_path)


def choose_everything(page: Page) -> None:
    """Open every detail and take every choice there is."""
    for details in page.locator("details").all():
        details.evaluate("node => { node.open = true; }")
    for select in page.locator("select").all():
        for option in select.locator("option").all():
            select.select_option(option.get_attribute("value"))


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")], ids=["desktop", "phone"])
def test_every_section_draws_and_fits_the_window(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    for opened in open_report(browser, full_page(), tmp_path, width, scheme):
        assert overflow(opened) == 0
        for chart in CHARTS:
            assert opened.locator(f"#{chart} svg").count() > 0, chart
        choose_everything(opened)
        assert overflow(opened) == 0


def test_crossing_lists_every_concept_once(opened: Page) -> None:
    for r, counts in (("1", ["1", "1", "1", "0"]), ("0.3", ["0", "1", "0", "2"])):
        opened.select_option("#said-strength", r)
        assert opened.locator(".quadrant .count").all_inner_texts() == counts
        listed = opened.locator(".quadrant .names li").all_inner_texts()
        assert sorted(listed) == sorted(f"the {name}" for name in CONCEPTS)


def test_crossing_says_beside_what_and_by_what_test(opened: Page) -> None:
    told = opened.locator("#said-basis").inner_text()
    assert "Upstream at r = 1, 2 of 3 directions steer. mine says 1 of them, and 1 that do not steer." in told
    assert "probe-ceiling, the ceiling, says 2 and 1; the floors say 0 and 0 at most" in told
    section = opened.locator("#concepts").inner_text()
    assert "A concept is read in 2 prompts here: with so few the test has little power" in section
    assert "false discovery rate at 5 %" in section


def test_crossing_of_a_verbalizer_that_was_not_judged_is_told_as_that(opened: Page) -> None:
    opened.select_option("#concept-verbalizer", "last-token")
    assert "The texts of last-token were not judged here." in opened.locator("#said-basis").inner_text()
    assert opened.locator(".quadrant").count() == 0


def test_trade_off_starts_from_neutral_content_and_no_concept(opened: Page) -> None:
    label = opened.locator("#content-charts svg").first.get_attribute("aria-label")
    assert label is not None
    assert "of mine: r 0: content 0.80, concept 0.50; r 0.3: content 0.74, concept" in label


def test_tables_show_figures_with_intervals_and_controls_with_leads(opened: Page) -> None:
    for details in opened.locator("details").all():
        details.evaluate("node => { node.open = true; }")

    def cells(table: str, head: str) -> str:
        return " ".join(opened.locator(f"#{table} tbody tr", has_text=head).first.inner_text().split())

    assert "0.00 [−0.10, 0.10]" in cells("controls-table", "average direction")
    assert "+0.40 [+0.30, +0.50]" in cells("controls-table", "average direction")
    assert "0.40 [0.30, 0.50]" in cells("round-trip-controls", "natural")
    assert "lead +0.20 [+0.10, +0.30]" in cells("round-trip-controls", "natural")
    assert "−0.20 [−0.30, −0.10]" in cells("information-table", "natural")
    assert "prompt-reader" in cells("information-table", "natural")
    assert "every reader" in cells("information-table", "steered")
    assert (
        "Steered less natural, in pairs at matched evidence: −0.12 [−0.22, −0.02]"
        in opened.locator("#round-trip-basis").inner_text()
    )


def test_hostile_names_stay_inert(browser: Browser, tmp_path: Path) -> None:
    names = {"mine": HOSTILE["image"], "prompt-reader": HOSTILE["script"], "norm": HOSTILE["script"] + "norm",
             "average_direction": HOSTILE["image"] + "average"}  # fmt: skip
    page = render(rename(make_full(), names), make_items())
    assert HOSTILE["script"] not in page
    for opened in open_report(browser, page, tmp_path):  # closing it checks that nothing ran
        choose_everything(opened)
        assert opened.locator("main img, main script").count() == 0
        opened.select_option("#concept-verbalizer", HOSTILE["image"])
        assert HOSTILE["script"] in opened.locator(".quadrant .names").first.inner_text()


def test_sections_without_numbers_open_without_complaint(browser: Browser, tmp_path: Path) -> None:
    for opened in open_report(browser, render(make_full(null=True), make_items()), tmp_path):
        choose_everything(opened)
        assert overflow(opened) == 0


def test_geometry_has_one_point_per_strength_where_items_were_read_in_mid_text_too(
    browser: Browser, tmp_path: Path
) -> None:
    arms = [make_arm("steered", r) for r in (0.3, 1.0)]
    arms += [arm.model_copy(update={"kind": "mid", "angle": 1.0}) for arm in arms]
    page = render(make_result().model_copy(update={"arms": arms}), make_items())
    for opened in open_report(browser, page, tmp_path):
        assert opened.locator("#geometry-chart svg circle").count() == 3  # and r = 0
