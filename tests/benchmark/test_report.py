"""Facts about the report: it is whole, it is inert whatever the texts say, and it reads on a phone.

The numbers here are made up for the tests; they are nobody's result.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from nlabench.benchmark import findings
from nlabench.benchmark.records import (
    ArmRecord,
    ConceptRecord,
    GateRow,
    MetricRow,
    Provenance,
    Result,
    ScorerRecord,
    VerbalizerRecord,
)
from nlabench.benchmark.report import examples
from nlabench.benchmark.report.dose import failed_conditions
from nlabench.benchmark.report.embedding import escape_json
from nlabench.benchmark.report.examples import pick_examples, read_labels
from nlabench.benchmark.report.headline import headline
from nlabench.benchmark.report.page import SCRIPTS, render_report
from playwright.sync_api import Browser, Page

CONCEPTS = ("joy", "ocean", "legalese")
ROLES = {"mine": "submitted", "probe-ceiling": "ceiling", "last-token": "reader", "constant": "floor"}
HOSTILE = {
    "script": "</script><script>window.pwned=1</script>",
    "image": "<img src=x onerror='window.pwned=2'>\u2028<!--<script>",
    "right to left": "שלום עולם \u202e evil txt.exe \u202c ",
    "emoji": "👩‍🚀🏳️‍🌈 the sea, the sea 🌊",
    "long": "an endless sentence " * 500,
    "unbroken": "x" * 10_000,
}


def make_result(metrics: list[MetricRow] | None = None) -> Result:
    return Result(
        provenance=make_provenance(),
        findings=["mine does what it does, <b>and nothing else</b>."],
        scorers=[make_scorer("strict", ranks=False), make_scorer("embedding", ranks=True)],
        scorer_agreement=[("strict", "embedding", 0.4)],
        verbalizers={name: make_verbalizer(name, role) for name, role in ROLES.items()},
        concepts=[make_concept(name, number) for number, name in enumerate(CONCEPTS)],
        gate=[make_gate(name, r) for name in CONCEPTS for r in (0.3, 1.0)],
        arms=[make_arm("steered", 0.3), make_arm("steered", 1.0), make_arm("permuted", 0.3), make_arm("natural", None)],
        excluded_items={"natural": 2},
        metrics=make_metrics() if metrics is None else metrics,
    )


def make_provenance() -> Provenance:
    return Provenance(
        nlabench="0.0", suite={"name": "made-up", "version": "1", "strengths": [0.3, 1.0]}, tasks={},
        subject="a-subject", subject_fingerprint="f00", subject_blocks=12, dtype="float32", device="cpu", layer=7,
        d_model=4, injection_layer=3, preamble_tokens=60, pack="made-up-pack", pack_fingerprint="f01",
        vectors_fingerprint="f02", seed=0, resamples=10, libraries={"numpy": "2"}, python="3.11", git=None,
        started="2000-01-02T03:04:05+00:00", seconds=61.0, arguments={},
    )  # fmt: skip


def make_scorer(name: str, *, ranks: bool) -> ScorerRecord:
    return ScorerRecord(
        name=name, fingerprint="f", ranks=ranks, naming=0.9, being=0.8, empty=0.5, all_concepts=0.5, negated=0.7,
        stuffed=0.6, foreign=None, naming_top1=0.5, being_top1=0.5, weakest=[("joy", 0.6)],
    )  # fmt: skip


def make_verbalizer(name: str, role: str) -> VerbalizerRecord:
    failed = name == "mine"
    return VerbalizerRecord(
        card={"name": name, "role": role, "description": HOSTILE["script"]}, fingerprint="f", n_texts=9,
        n_failed=int(failed), first_error=HOSTILE["image"] if failed else "", distinct_texts=0.5, seconds=1.0,
        texts_per_second=None, rerun_checked=None, rerun_agreed=None, warnings=["a warning"] if failed else [],
    )  # fmt: skip


def make_concept(name: str, number: int) -> ConceptRecord:
    out = {"readout/function": "split-half cosine 0.20 < 0.7"} if name == "legalese" else {}
    return ConceptRecord(
        name=name, title=f"the {name}", family="made_up", description=name, method="m", contrast="rest",
        split_half=None if number else 0.8, split_half_upstream=None, length=1.0,
        matched_r={"readout/function": None if out else 0.2}, natural_evidence={}, excluded=out,
    )  # fmt: skip


def make_gate(concept: str, r: float) -> GateRow:
    return GateRow(
        concept=concept, r=r, score=1.0, permuted=0.5, p=0.01, q=0.02, loss=None if r == 1.0 else 1.5, distinct_2=0.8,
        steers=concept == "joy", example=HOSTILE["script"],
    )  # fmt: skip


def make_arm(arm: str, r: float | None) -> ArmRecord:
    return ArmRecord(
        arm=arm, injection="none" if r is None else "readout", level="grid", kind="function", r=r, n_items=3,
        n_outliers=0, norm=10.0, displacement=r or 0.0, angle=40 * (r or 0.0), evidence=None,
    )  # fmt: skip


def make_metrics(*, null: bool = False) -> list[MetricRow]:
    """Every metric that the page knows, for every verbalizer and scorer; all of them undefined where `null`."""

    def row(metric: str, value: float, task: str = "concept_identification", **fields: Any) -> MetricRow:
        at: dict[str, Any] = {"arm": "steered", "injection": "readout", "n_items": 6, "n_concepts": 2, **fields}
        numbers = {"value": None} if null else {"value": value, "low": value - 0.1, "high": value + 0.1}
        return MetricRow(task=task, metric=metric, note="not defined" if null else "", **{**numbers, **at})

    rows = []
    for verbalizer in ROLES:
        for scorer in ("strict", "embedding"):
            who = {"verbalizer": verbalizer, "scorer": scorer}
            matched = {**who, "level": "matched"}
            for arm in ("natural", "steered"):
                rows.append(row("auroc_in_pairs", 0.7, arm=arm, **matched))
                rows.append(row("place", 0.9, arm=arm, **matched, n_items=9))
                rows.append(row("place_in_pairs", 0.1, arm=arm, **matched, n_items=6))
            rows.append(row("auroc_gap", -0.123, arm="steered-natural", **matched))
            rows += [row("auroc", 0.8, **matched, group=name) for name in CONCEPTS]
            dose = {**who, "task": "dose_response"}
            rows += [row("steered_against_permuted", 0.5 + r / 4, r=r, **dose) for r in (0.3, 1.0)]
            rows += [row(metric, 0.4, **dose) for metric in ("monotonicity", "area")]
            rows.append(row("r50", 0.4, **dose).model_copy(update={"high": None, "censored_at": 1.0}))
            claims = {**who, "task": "confabulation"}
            for arm in ("permuted", "random"):
                rows += [row("false_claims_over_neutral", 0.2, arm=arm, r=r, **claims) for r in (0.3, 1.0)]
            rows.append(row("true_claims", 0.5, arm="natural", **{**claims, "injection": "none"}))
        unscored = {"verbalizer": verbalizer, "scorer": "none", "task": "confabulation"}
        rows.append(row("changed_texts", 0.5, r=0.3, **unscored))
    return rows


def make_items(texts: dict[str, str] = HOSTILE, n_prompts: int = 3) -> pd.DataFrame:
    """Natural, matched, neutral and grid items; `mine` says the hostile texts in turn."""
    said = list(texts.values())
    labels: list[dict[str, Any]] = []
    for number in range(n_prompts):
        neutral = f"neutral/readout/{number}"
        labels.append({"arm": "neutral", "concept": None, "prompt": neutral, "position": 3})
        for name in CONCEPTS:
            natural = f"{name}/natural/{number}"
            steered = {"arm": "steered", "injection": "readout", "concept": name, "prompt": neutral, "position": 3}
            labels.append({"arm": "natural", "concept": name, "prompt": natural, "position": 5})
            labels.append({**steered, "level": "matched", "r": 0.2, "pair": f"{natural}@5"})
            labels += [{**steered, "r": r} for r in (0.3, 1.0)]
    start = {"injection": "none", "level": "grid", "kind": "function", "word": "of", "r": 0.0, "pair": None}
    rows = []
    for verbalizer in ROLES:
        for number, label in enumerate(labels):
            scores = np.eye(3, dtype=np.float32)[number % 3]
            text = said[number % len(said)] if verbalizer == "mine" else f"{verbalizer} sees nothing"
            error = HOSTILE["image"] if verbalizer == "mine" and number == 1 else None
            rows.append(
                {**start, **label, "item_id": f"id{number}", "verbalizer": verbalizer, "text": "" if error else text,
                 "error": error, "score_embedding": scores, "score_strict": None}
            )  # fmt: skip
    return pd.DataFrame(rows)


def write_items(items: pd.DataFrame, folder: str) -> Path:
    file = Path(folder) / "items.parquet"
    items.to_parquet(file, index=False)
    return file


def render(result: Result, items: pd.DataFrame) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return render_report(result, write_items(items, folder))


def pick(result: Result, items: pd.DataFrame) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = write_items(items, folder)
        return pick_examples(result, read_labels(file), file)


def read_data(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


def test_page_is_complete_in_itself() -> None:
    page = render(make_result(), make_items())
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["'](?!#|data:,)[^"']*""", strip_scripts(page))
    assert "@import" not in page
    assert "url(" not in strip_scripts(page)
    assert "default-src &#39;none&#39;" in page


def test_texts_cannot_leave_the_json_block() -> None:
    page = render(make_result(), make_items())
    assert page.count("</script>") == 1 + len(SCRIPTS)  # the data and the bundled scripts
    assert HOSTILE["script"] not in page
    assert HOSTILE["script"] in read_data(page)["examples"]["texts"]


def test_a_pack_without_naming_texts_is_told_of_in_the_findings() -> None:
    result = make_result()
    unmarked = [scorer.model_copy(update={"forms_marked": False}) for scorer in result.scorers]
    told = [line for line in findings.find(result.model_copy(update={"scorers": unmarked})) if "held-out" in line]
    assert len(told) == 1
    assert "whether they know a concept by its name was not tested" in told[0]
    assert not any("held-out" in line for line in findings.find(result))


def test_markup_in_findings_and_cards_is_escaped() -> None:
    page = strip_scripts(render(make_result(), make_items()))
    assert "&lt;b&gt;and nothing else&lt;/b&gt;" in page
    assert "<img" not in page


def test_json_keeps_its_strings_and_holds_no_markup() -> None:
    escaped = escape_json(HOSTILE)
    assert not set("<>&\u2028\u2029") & set(escaped)
    assert json.loads(escaped) == HOSTILE


@pytest.mark.parametrize("metrics", [[], make_metrics(null=True)], ids=["absent", "null"])
def test_page_renders_without_numbers(metrics: list[MetricRow]) -> None:
    page = render(make_result(metrics), make_items())
    assert "a-subject" in page


def test_page_renders_without_items() -> None:
    assert read_data(render(make_result(), make_items().iloc[:0]))["examples"]["pairs"] == []


def test_place_belongs_to_the_items_of_its_auroc() -> None:
    rows = headline(make_result())["rows"]["readout/function"]["embedding"]
    assert [row["place_steered"]["n"] for row in rows] == [row["steered"]["n"] for row in rows]


def test_which_of_the_gates_conditions_failed_is_told() -> None:
    row = make_gate("joy", 0.3)
    assert failed_conditions(row, {}) == []
    assert failed_conditions(row, {"false_discovery_rate": 0.01}) == ["no more than permuted directions do"]
    assert failed_conditions(row.model_copy(update={"score": 0.4}), {}) == ["no more than permuted directions do"]
    broken = row.model_copy(update={"loss": 5.0, "distinct_2": 0.1})
    assert failed_conditions(broken, {"most_loss": 4.0}) == ["loss over 4", "it repeats itself"]
    assert read_data(render(make_result(), make_items()))["concepts"][0]["gate"][1]["fails"] == ["no loss was measured"]


def test_pairs_share_the_natural_readout() -> None:
    found = pick(make_result(), make_items())
    assert found["n_pairs"] == len(found["pairs"]) == 9
    for natural, steered, neutral in found["pairs"]:
        items = found["items"]
        assert items[natural]["concept"] == items[steered]["concept"]
        assert items[neutral]["prompt"] == items[steered]["prompt"]


@pytest.mark.parametrize("arms", [["natural"], ["neutral"], ["natural", "neutral"]])
def test_a_run_without_steered_items_has_a_page_without_examples(arms: list[str]) -> None:
    items = make_items()
    found = read_data(render(make_result(), items[items["arm"].isin(arms)]))["examples"]
    assert (found["pairs"], found["series"], found["texts"]) == ([], [], [])


def test_pairs_without_a_grid_are_shown() -> None:
    items = make_items()
    found = pick(make_result(), items[(items["arm"] != "steered") | (items["level"] == "matched")])
    assert (found["n_pairs"], found["n_series"]) == (9, 0)


def test_sample_of_examples_does_not_depend_on_the_order_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "MOST_PAIRS", 4)
    items = make_items()
    found = pick(make_result(), items)
    again = pick(make_result(), items.sample(frac=1, random_state=1).reset_index(drop=True))
    assert len(found["pairs"]) == 4 < found["n_pairs"]
    assert prompts_of(found) == prompts_of(again)


def test_page_stays_under_five_megabytes() -> None:
    long = {str(number): f"{number} " * 400 for number in range(4000)}
    page = render(make_result(), make_items(long, n_prompts=250))
    assert len(page.encode()) < 5e6
    assert "A sample of" in page


def test_tied_scores_do_not_count_as_right() -> None:
    items = make_items()
    items["score_embedding"] = [np.ones(3)] * len(items)
    said = pick(make_result(), items)["said"]["mine"]
    assert {entry[1] for entry in said} == {2.0, None}


def strip_scripts(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.S)


def prompts_of(found: dict[str, Any]) -> list[str]:
    return [found["items"][natural]["prompt"] for natural, *_ in found["pairs"]]


# In a browser


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["desktop", "phone"])
def opened(browser: Browser, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    """The report of hostile texts, open from a file; closing it checks that it complained of and asked for nothing."""
    width, scheme = request.param
    yield from open_report(browser, render(make_result(), make_items()), tmp_path, width, scheme)


def open_report(browser: Browser, html: str, folder: Path, width: int = 1280, scheme: Any = "light") -> Iterator[Page]:
    (folder / "report.html").write_text(html, encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((folder / "report.html").as_uri())
    page.wait_for_selector("#example-list .card")
    yield page
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("window.pwned") is None
    context.close()


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_page_fits_the_window_and_draws_its_charts(opened: Page) -> None:
    assert overflow(opened) == 0
    for chart in ("headline-chart", "dose-charts", "gate-charts", "claims-charts", "geometry-chart"):
        assert opened.locator(f"#{chart} svg").count() > 0, chart


def test_headline_shows_intervals_and_censored_r50(opened: Page) -> None:
    row = opened.locator("#headline-table tbody tr", has_text="mine").inner_text()
    assert "0.70 [0.60, 0.80]" in row
    assert "−0.12 [−0.22, −0.02]" in row
    assert "0.40 [0.30, > 1]" in row


def test_hostile_texts_are_shown_as_they_are_written(opened: Page) -> None:
    opened.select_option("#example-end", "")
    shown = " ".join(opened.locator("#example-list .said").all_inner_texts())
    assert HOSTILE["script"] in shown
    assert opened.locator("#example-list img, #example-list script").count() == 0
    opened.locator("#example-list .more").first.click()
    assert overflow(opened) == 0


def test_policy_stops_a_script_that_is_not_the_page_s_own(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(render(make_result(), make_items()), encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.pwned = 1'}))")
    assert page.evaluate("window.pwned") is None
    page.close()


def test_filters_narrow_the_texts(opened: Page) -> None:
    assert opened.locator("#example-list .card").count() == 9
    opened.select_option("#example-concept", label="the ocean")
    assert opened.locator("#example-list .card").count() == 3
    opened.select_option("#example-verbalizer", "constant")
    opened.fill("#example-search", "sees NOTHING")
    assert opened.locator("#example-list .card").count() == 3
    opened.fill("#example-search", "no text holds this")
    assert opened.locator("#example-list .card").count() == 0
    assert "No pairs fit" in opened.locator("#example-count").inner_text()


def test_right_and_wrong_divide_the_texts(opened: Page) -> None:
    parts = 0
    for value in ("both", "natural", "steered", "none"):
        opened.select_option("#example-right", value)
        parts += opened.locator("#example-list .card").count()
    assert parts == 9


def test_series_show_a_text_from_rest_to_the_largest_strength(opened: Page) -> None:
    opened.select_option("#example-view", "series")
    strengths = opened.locator("#example-list .card").first.locator(".r").all_inner_texts()
    assert strengths == ["r = 0", "r = 0.3", "r = 1"]


def test_gate_s_answers_open_as_text(opened: Page) -> None:
    opened.locator("#concept-table button").first.click()
    assert opened.locator("#concept-table .said").all_inner_texts() == [HOSTILE["script"]] * 2
    assert overflow(opened) == 0


def test_every_choice_redraws_without_complaint(opened: Page) -> None:
    for select in opened.locator("select").all():
        for option in select.locator("option").all():
            select.select_option(option.get_attribute("value"))
    for details in opened.locator("details").all():
        details.evaluate("node => { node.open = true; }")
    assert overflow(opened) == 0


def test_keyboard_reaches_the_first_choice(opened: Page) -> None:
    for _ in range(40):
        opened.keyboard.press("Tab")
        if opened.evaluate("document.activeElement.id") == "scorer":
            return
    pytest.fail("forty tabs did not reach the choice of scorer")


@pytest.mark.parametrize("metrics", [[], make_metrics(null=True)], ids=["absent", "null"])
def test_page_without_numbers_opens_without_complaint(
    browser: Browser, tmp_path: Path, metrics: list[MetricRow]
) -> None:
    for page in open_report(browser, render(make_result(metrics), make_items()), tmp_path):
        test_every_choice_redraws_without_complaint(page)
