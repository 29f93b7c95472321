"""Render a run's report: one HTML file, complete in itself, that asks nothing of any network.

Verbalizers' texts are untrusted. They travel in one JSON block with every character escaped that HTML could act on,
and the page's script inserts them as text only. A content security policy lets no script run but the bundled ones,
named by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from ..records import Result
from ..scoring.validation import BEING_GATE, NAMING_GATE
from .concepts import concept_rows, identified
from .confabulation import confabulation
from .dose import dose_response, gate_by_strength
from .examples import pick_examples
from .headline import headline
from .said import steers_and_said
from .sections import SECTIONS
from .shown import (
    ROLE_MEANINGS,
    ROLES,
    in_reading_order,
    role_of,
    show_duration,
    show_number,
    show_percent,
    show_strength,
)
from .tables import ARM_MEANINGS, excluded_concepts, geometry, provenance_rows, verbalizer_rows

#: In this order: what is at the top level of one is known to those after it.
SCRIPTS = (
    "vendor/d3.min.js", "vendor/plot.umd.min.js", "elements.js", "headline.js", "dose.js", "curves.js", "said.js",
    "concepts.js", "confabulation.js", *(f"{section.name}.js" for section in SECTIONS), "geometry.js", "examples.js",
    "report.js",
)  # fmt: skip

#: Plot and d3 set styles from script, one by one, so styles cannot be named by hash; they can fetch nothing either way.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; script-src "
)


def render_report(result: Result, items: pd.DataFrame) -> str:
    """The report of a run as one HTML document.

    items: one row per item and verbalizer, as in `items.parquet` (labels, text, error, `score_<scorer>` rows).
    """
    scripts = [_read(name) for name in SCRIPTS]
    examples = pick_examples(result, items)
    data = _page_data(result, examples)
    environment = Environment(
        loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        number=show_number, percent=show_percent, strength=show_strength, duration=show_duration, indented=_indented
    )
    return environment.get_template("report.html.j2").render(
        result=result,
        provenance=result.provenance,
        tested=[n for n in in_reading_order(result.verbalizers) if role_of(result.verbalizers[n]) in ROLES[:2]],
        verbalizers=verbalizer_rows(result),
        role_meanings={role: ROLE_MEANINGS[role] for role in ROLES},
        arm_meanings=ARM_MEANINGS,
        naming_gate=NAMING_GATE,
        being_gate=BEING_GATE,
        titles={concept.name: concept.title for concept in result.concepts},
        geometry=geometry(result),
        excluded_concepts=excluded_concepts(result),
        provenance_rows=provenance_rows(result),
        said=data["said"],
        content=data["content"],
        sections=[section for section in SECTIONS if data[section.name] is not None],
        n_items=_count_items(items),
        examples=examples,
        policy=POLICY + " ".join(_hash(script) for script in scripts),
        scripts=[Markup(script) for script in scripts],
        style=Markup(_read("report.css")),
        data=Markup(escape_json(data)),
    )


def escape_json(data: Any) -> str:
    """JSON that stays data inside a script element, whatever its strings hold.

    `<`, `>` and `&` cannot end the element or open a comment; U+2028 and U+2029 are line ends to some parsers.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _page_data(result: Result, examples: dict[str, Any]) -> dict[str, Any]:
    """Everything that the page's script draws from."""
    return {
        "scorers": [{"name": scorer.name, "ranks": scorer.ranks} for scorer in result.scorers],
        "scorer": result.headline_scorer,
        "verbalizers": [
            {
                "name": row["name"],
                "role": row["role"],
                "description": str(row["record"].card.get("description", "")),
                "speed": row["record"].texts_per_second,
                "failed": row["record"].n_failed,
                "texts": row["record"].n_texts,
            }
            for row in verbalizer_rows(result)
        ],
        "roles": {role: ROLE_MEANINGS[role] for role in ROLES},
        "headline": headline(result),
        "dose": dose_response(result),
        "gate": gate_by_strength(result),
        "concepts": concept_rows(result),
        "identified": identified(result),
        "said": steers_and_said(result),
        "confabulation": confabulation(result),
        **{section.name: section.collect(result) for section in SECTIONS},
        "geometry": geometry(result),
        "examples": examples,
    }


def _count_items(items: pd.DataFrame) -> int:
    return int(items["item_id"].nunique()) if "item_id" in items else 0


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
