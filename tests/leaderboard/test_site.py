"""Facts about the board's site: it sorts, filters and compares, it is inert, and it reads on a phone.

The numbers here are made up for the tests; they are nobody's result.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nlabench.leaderboard.entries import Entry
from nlabench.leaderboard.results_store import add_entry
from nlabench.leaderboard.site.build import build_site
from nlabench.leaderboard.site.pages import entry_page, write_site
from playwright.sync_api import Browser, Page

EVIL = "</script><script>window.pwned=1</script><img src=http://evil.test/x onerror='window.pwned=2'>"
NAMES = {
    "probe-ceiling": "ceiling", "alpha": "submitted", "beta": "submitted",
    f"{EVIL} \u202e txt.exe 👩‍🚀 {'x' * 400}": "submitted",
    "logit-lens": "baseline", "constant": "floor", "last-token": "reader",
}  # fmt: skip
COLUMNS: list[dict[str, Any]] = [
    {"id": "steered", "title": "steered", "what": "AUROC of steered concepts.", "better": "higher", "ranked": True},
    {"id": "false_claims", "title": "false claims", "what": "Share claimed.", "better": "lower", "ranked": True},
    {"id": "r50", "title": "r50", "what": "Strength at half.", "better": "lower", "ranked": False},
    {"id": "content", "title": "content kept", "what": "Content.", "better": "higher", "ranked": True},
]
for column in COLUMNS:
    column["headline"] = column["id"] != "content"


def make_entry(number: int, name: str, role: str) -> dict[str, Any]:
    ranked = role in ("submitted", "baseline")
    value = 0.95 - 0.07 * number

    def cell(v: float | None, **fields: Any) -> dict[str, Any]:
        bounds = {"low": None if v is None else v - 0.05, "high": None if v is None else v + 0.05}
        empty = {"note": "", "censored_at": None, "place": None, "best": None, "worst": None, "of": 0}
        return {"value": v, **bounds, **empty, **fields}

    rank = {"best": number, "worst": number + 1, "of": 4} if ranked else {}
    end = {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 4}
    metric = {
        "task": "concept_identification", "metric": "auroc", "arm": "steered", "injection": "readout", "level": "grid",
        "kind": "function", "r": 0.3, "group": "", "versus": "", "value": value, "low": value - 0.05,
        "high": None, "n_items": 1200, "note": EVIL,
    }  # fmt: skip
    return {
        "id": f"{number:012x}", "slug": f"entry-{number}", "name": name, "role": role, "failed": number % 2 * 3,
        "status": "verified" if number == 1 else "self-reported",
        "n_texts": 8911, "texts_per_second": 12.5 * number or None,
        "verified": {"how": "rerun", "by": "m", "date": "2000-01-01", "evidence": EVIL} if number == 1 else None,
        "seconds": 60.0, "warnings": [EVIL], "eligible": ranked, "why_not": "" if ranked else "a control",
        "card": {
            "name": name, "version": "1", "authors": ["A. Author", EVIL], "licence": "MIT", "training_data": "none",
            "link": "https://example.org/x" if number == 1 else "javascript:window.pwned=3", "description": f"A {EVIL}",
        },
        "cells": {
            "steered": cell(value, **rank), "false_claims": cell(0.1 * number, **rank),
            "r50": cell(None, censored_at=2.0) if number == 2 else cell(0.3 + 0.1 * number),
        },
        "dose": [
            {"injection": at, "r": r, "value": 0.5 + r / 5, "low": 0.45 + r / 5, "high": 0.55 + r / 5}
            for at in ("readout", "upstream") for r in (0.0, 0.3, 1.0, 2.0)
        ],
        "tradeoff": [
            {"r": r, "concept": 0.5 + by, "concept_low": 0.45 + by, "concept_high": 0.55 + by,
             "content": 0.9 - by, "content_low": 0.85 - by, "content_high": 0.95 - by}
            for r in (0.3, 1.0, 2.0) for by in (0.0 if role == "floor" else r / 5,)
        ],
        "metrics": [metric, {**metric, "task": "confabulation", "metric": "false_claims"}],
        "families": {"emotions": {"natural": end, "steered": end}},
        "concepts": [
            {"name": c, "title": f"the {c}", "family": "emotions", "natural": 0.8, "steered": value}
            for c in ("joy", "fear")
        ],
        "said": {"r": 0.3, "steers_and_said": 3, "steers_unsaid": 2, "said_without_steering": 1, "neither": 9},
    }  # fmt: skip


def make_board(key: str = "a-subject", *, private: bool = False) -> dict[str, Any]:
    entries = [make_entry(number, *item) for number, item in enumerate(NAMES.items())]
    a, b, c = (entry["id"] for entry in entries[1:4])
    return {
        "key": key, "title": f"{key} at block 7", "subject": "a-subject", "layer": 7, "blocks": 12, "suite": "standard",
        "suite_version": "1", "pack": "core", "private": private, "scorer": "embedding", "n_items": 8911,
        "n_concepts": 2, "columns": COLUMNS, "entries": entries, "families": ["emotions"], "provenance": {},
        "pairs": {
            f"{a}|{b}": {"steered": [0.07, 0.02, 0.12], "false_claims": [-0.1, -0.2, -0.05], "r50": None},
            f"{a}|{c}": {"steered": [0.01, -0.02, 0.04]},
        },
    }  # fmt: skip


EXAMPLE = {
    "concept": "joy", "title": "the joy", "word": "sea", "natural": EVIL,
    "steered": "שלום \u202e evil txt.exe 👩‍🚀 " + "long " * 2000, "r": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    boards = [make_board(), make_board("secret", private=True)]
    for entry in boards[1]["entries"]:
        entry["id"] = "f" + entry["id"][1:]
    examples = {entry["id"]: [EXAMPLE] * 3 for entry in boards[0]["entries"]}
    write_site(boards, examples, [(f"bad/{EVIL}", f"card.json: {EVIL}")], out)
    return out


@pytest.fixture(params=[1280, 390])
def opened(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that fails the test where it complains, asks anything of a network, or ran a script not its own."""
    context = browser.new_context(viewport={"width": request.param, "height": 900})
    page = context.new_page()
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda sent: None if sent.url.startswith("file:") else complaints.append(sent.url))
    page.route("http*://**", lambda route: route.abort())
    yield page
    assert page.evaluate("window.pwned") is None
    assert complaints == []
    context.close()


def names(page: Page) -> list[str]:
    return [str(name)[:20] for name in page.locator("#board-table tbody th a").all_inner_texts()]


def address(site: Path, page: str, state: str = "") -> str:
    return (site / page).as_uri() + (f"#{state}" if state else "")


def test_every_page_fits_the_window_without_complaint(opened: Page, site: Path) -> None:
    for file in sorted(site.rglob("*.html")):
        opened.goto(file.as_uri())
        wide = opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{file.name} is {wide} px wider than the window"
        assert opened.evaluate("window.pwned") is None


def test_table_is_sorted_by_its_first_ranked_column_and_says_so(opened: Page, site: Path) -> None:
    opened.goto(address(site, "index.html"))
    assert names(opened)[:3] == ["probe-ceiling", "alpha", "beta"]
    assert opened.locator("th[aria-sort=descending] .sort").inner_text().startswith("steered")


def test_keyboard_sorts_and_the_address_remembers(opened: Page, site: Path) -> None:
    opened.goto(address(site, "index.html"))
    opened.locator("[data-sort=steered]").focus()
    opened.keyboard.press("Enter")
    assert names(opened)[0] == "last-token"
    assert opened.evaluate("document.activeElement.dataset.sort") == "steered"
    opened.reload()
    assert names(opened)[0] == "last-token"


def test_missing_values_sort_last_and_censored_ones_by_their_bound(opened: Page, site: Path) -> None:
    opened.goto(address(site, "index.html", "sort=r50&dir=desc"))
    assert names(opened)[0] == "beta"
    assert "> 2" in opened.locator("#board-table tbody tr").first.inner_text()


def test_filters_narrow_the_table(opened: Page, site: Path) -> None:
    opened.goto(address(site, "index.html"))
    opened.fill("#q", "ALPH")
    assert names(opened) == ["alpha"]
    opened.fill("#q", "")
    opened.select_option("#role", "floor")
    assert names(opened) == ["constant"]


def test_deep_link_opens_the_private_board_filtered(opened: Page, site: Path) -> None:
    opened.goto(address(site, "index.html", "board=secret&role=submitted&cols=steered"))
    assert "private pack" in opened.locator("#basis").inner_text()
    assert names(opened)[0] == "alpha"
    assert len(names(opened)) == 3
    assert opened.locator("#board-table [data-sort]").count() == 3  # name, steered, speed


def test_columns_are_left_out_and_added_by_choice(opened: Page, site: Path) -> None:
    opened.goto(address(site, "index.html"))
    assert opened.locator("[data-sort=content]").count() == 0
    opened.locator(".chooser summary").click()
    opened.locator("#columns input[value=r50]").uncheck()
    opened.locator("#columns input[value=content]").check()
    assert opened.locator("[data-sort=r50]").count() == 0
    assert opened.locator("[data-sort=content]").count() == 1
    opened.reload()
    assert opened.locator("[data-sort=content]").count() == 1


def test_rank_is_an_interval_and_floors_have_none(opened: Page, site: Path) -> None:
    opened.goto(address(site, "index.html"))
    assert opened.locator("tr", has_text="alpha").locator(".rank").first.inner_text() == "1–2"
    assert opened.locator("tr.bracket", has_text="constant").locator(".rank").first.inner_text() == "–"


def test_comparison_says_better_worse_or_cannot_be_told_apart(opened: Page, site: Path) -> None:
    a, b, c = (f"{number:012x}" for number in (1, 2, 3))
    opened.goto(address(site, "compare.html", f"a={a}&b={b}"))
    verdicts = opened.locator(".verdict").all_inner_texts()
    assert [text.split()[-1] for text in verdicts] == ["better", "better", "difference", "difference"]
    opened.click("#swap")
    assert opened.locator(".verdict").first.inner_text() == "▼ worse"
    assert "−0.07 [−0.12, −0.02]" in opened.locator("#comparison").inner_text()
    opened.select_option("#a", a)
    opened.select_option("#b", c)
    assert "cannot be told apart" in opened.locator(".verdict").first.inner_text()


def test_hostile_entry_is_shown_as_it_is_written(opened: Page, site: Path) -> None:
    opened.goto(address(site, entry_page(make_entry(3, *list(NAMES.items())[3]))))
    assert "<script>" in opened.locator("h1").inner_text()
    assert EVIL in opened.locator("#examples .said").first.inner_text()
    assert max(len(text) for text in opened.locator("#examples .said").all_inner_texts()) <= 601
    assert opened.locator("a[href^='javascript:'], img").count() == 0


def test_web_address_of_a_card_is_a_link_that_tells_no_referrer(opened: Page, site: Path) -> None:
    opened.goto(address(site, entry_page(make_entry(1, "alpha", "submitted"))))
    found = opened.locator("#facts a")
    assert found.get_attribute("href") == "https://example.org/x"
    assert "noreferrer" in str(found.get_attribute("rel"))
    assert opened.locator("#dose svg").count() == 2
    assert opened.locator("#tradeoff svg").count() == 1
    opened.locator("#metrics summary").first.click()
    opened.locator("#metrics table").first.wait_for()
    assert "1,200" in opened.locator("#metrics").inner_text()


def test_text_that_never_changes_has_no_trade_off(opened: Page, site: Path) -> None:
    opened.goto(address(site, entry_page(make_entry(5, "constant", "floor"))))
    assert opened.locator("#tradeoff-section").is_hidden()
    assert opened.locator("#dose svg").count() == 2


def test_family_page_draws_natural_and_steered(opened: Page, site: Path) -> None:
    opened.goto(address(site, "family/a-subject-emotions.html"))
    assert opened.locator("#verbalizers svg").count() == 2 * len(NAMES)
    assert "the joy" in opened.locator("#concepts").inner_text()


def test_broken_entry_is_listed_with_the_reason(opened: Page, site: Path) -> None:
    opened.goto(address(site, "index.html"))
    opened.locator(".notice-line a").click()
    assert f"card.json: {EVIL}" in opened.locator("#broken").inner_text()


def test_entry_that_trips_the_build_is_listed_and_the_others_are_built(
    opened: Page, planted_entries: dict[str, Entry], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    for name in ("good", "poor"):
        add_entry(planted_entries[name].folder, results)
    spoilt = add_entry(planted_entries["mute"].folder, results)
    (spoilt / "items.parquet").write_bytes(b"PAR1 and no more")
    said: list[str] = []
    build_site(results, tmp_path / "site", said.append)
    assert said[0].startswith("2 entries, 1 with a fault")
    opened.goto((tmp_path / "site" / "index.html").as_uri())
    assert sorted(names(opened)) == ["good", "poor"]
    opened.locator(".notice-line a").click()
    assert spoilt.name in opened.locator("#broken").inner_text()


def test_site_without_entries_says_so(opened: Page, tmp_path: Path) -> None:
    write_site([], {}, [], tmp_path)
    opened.goto((tmp_path / "index.html").as_uri())
    assert "no entries yet" in opened.locator("#count").inner_text()
