"""Render a run's report: one HTML file, complete in itself, that asks nothing of any network.

Verbalizers' texts are untrusted. They travel in one JSON block with every character escaped that HTML could act on,
and the page's script inserts them as text only. A content security policy lets no script run but the bundled ones,
named by their hashes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from ..records import Result
from ..scoring.validation import BEING_GATE, NAMING_GATE
from .concepts import concept_rows, identified
from .confabulation import confabulation
from .dose import dose_response, gate_by_strength
from .embedding import escape_json, policy, read_asset
from .examples import pick_examples, read_labels
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
    "vendor/d3.min.js", "vendor/plot.umd.min.js", "drawing.js", "elements.js", "headline.js", "dose.js", "curves.js",
    "said.js", "concepts.js", "confabulation.js", *(f"{section.name}.js" for section in SECTIONS), "geometry.js",
    "examples.js", "report.js",
)  # fmt: skip


def render_report(result: Result, items: Path) -> str:
    """The report of a run as one HTML document. items: the run's `items.parquet`."""
    scripts = [read_asset(name) for name in SCRIPTS]
    labels = read_labels(items)
    examples = pick_examples(result, labels, items)
    data = _page_data(result, examples)
    environment = Environment(
        loader=FunctionLoader(read_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
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
        n_items=len(labels),
        examples=examples,
        policy=policy(scripts),
        scripts=[Markup(script) for script in scripts],
        style=Markup(read_asset("report.css")),
        data=Markup(escape_json(data)),
    )


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


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
