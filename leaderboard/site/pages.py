"""The site's pages: which there are, what each is told, and where it lies.

Names, cards and texts come from anybody. They travel in one JSON block per page, escaped, and the page's script
inserts them as text only; a content security policy lets no script run but the bundled ones, named by their hashes.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from ...benchmark.report.embedding import escape_json, policy, read_asset
from ...benchmark.store import write_atomically

#: What the table and the comparison need of an entry; its own page has the rest.
SUMMARY = ("id", "name", "role", "status", "failed", "n_texts", "texts_per_second", "eligible", "why_not", "cells")
CHARTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js")

Boards = Sequence[Mapping[str, Any]]


def write_site(
    boards: Boards, examples: Mapping[str, list[dict[str, Any]]], broken: Sequence[tuple[str, str]], out: Path
) -> list[Path]:
    """Write every page under `out`; the files written, index.html first.

    boards: as `build_boards` gives them. examples: of an entry's id. broken: (folder, reason) of entries left out.
    """
    written = [
        _write(
            out, "index.html", "Leaderboard", {"boards": [_summary(board) for board in boards]}, n_broken=len(broken)
        ),
        _write(out, "compare.html", "Compare two", {"boards": [_paired(board) for board in boards]}),
        _write(out, "broken.html", "Entries with a fault", {"broken": [list(row) for row in broken]}),
    ]
    for board in boards:
        about = {name: board[name] for name in ("key", "title", "n_concepts", "n_items", "scorer", "columns")}
        for entry in board["entries"]:
            data = {"board": about, "entry": entry, "examples": examples.get(entry["id"], [])}
            data["families"] = [[name, family_page(board, name)] for name in board["families"]]
            written.append(_write(out, entry_page(entry), entry["name"], data, charts=True, template="entry"))
        for family in board["families"]:
            rows = [_in_family(entry, family) for entry in board["entries"]]
            data = {"board": about, "family": family, "entries": rows}
            written.append(_write(out, family_page(board, family), family.replace("_", " "), data, template="family"))
    return written


def entry_page(entry: Mapping[str, Any]) -> str:
    """Where an entry's page lies. Its id is in the name, so a later version of a verbalizer moves no link."""
    return f"v/{_slug(entry['slug'])}-{_slug(entry['id'])}.html"


def family_page(board: Mapping[str, Any], family: str) -> str:
    """Where the page of a family on a board lies."""
    return f"family/{_slug(board['key'])}-{_slug(family)}.html"


def _summary(board: Mapping[str, Any]) -> dict[str, Any]:
    about = {name: value for name, value in board.items() if name not in ("entries", "pairs", "provenance", "families")}
    families = [[name, family_page(board, name)] for name in board["families"]]
    return {**about, "families": families, "entries": [_in_short(entry) for entry in board["entries"]]}


def _paired(board: Mapping[str, Any]) -> dict[str, Any]:
    about = {name: board[name] for name in ("key", "title", "private", "columns", "pairs")}
    return {**about, "entries": [_in_short(entry) for entry in board["entries"]]}


def _in_short(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: entry[name] for name in SUMMARY}, "page": entry_page(entry)}


def _in_family(entry: Mapping[str, Any], family: str) -> dict[str, Any]:
    return {
        **{name: entry[name] for name in ("id", "name", "role")},
        "page": entry_page(entry),
        "ends": entry["families"].get(family),
        "concepts": [concept for concept in entry["concepts"] if concept["family"] == family],
    }


def _write(
    out: Path,
    name: str,
    title: str,
    data: dict[str, Any],
    *,
    charts: bool = False,
    template: str = "",
    n_broken: int = 0,
) -> Path:
    template = template or name.removesuffix(".html")
    scripts = [read_asset(script) for script in (*(CHARTS if charts else ()), "drawing.js")]
    scripts += [_read("site.js"), _read(f"{template}.js")]
    home = "../" * name.count("/")
    page = (
        _environment()
        .get_template(f"{template}.html.j2")
        .render(
            title=title,
            home=home,
            here=name,
            charts=charts,
            version=importlib.metadata.version("nlabench"),
            project=project_page(),
            n_broken=n_broken,
            policy=policy(scripts),
            scripts=[Markup(script) for script in scripts],
            style=Markup(read_asset("report.css") + _read("site.css")),
            data=Markup(escape_json({**data, "home": home})),
        )
    )
    write_atomically(out / name, page)
    return out / name


def project_page() -> str | None:
    """The project's address as the installed package states it (`url` or `project_urls` in setup.cfg), or None."""
    stated = importlib.metadata.metadata("nlabench")
    labelled = [line.partition(",")[2].strip() for line in stated.get_all("Project-URL") or []]
    addresses = [*labelled, *(stated.get_all("Home-page") or [])]
    return next((address for address in addresses if address.startswith(("https://", "http://"))), None)


def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.")[:80] or "unnamed"


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
