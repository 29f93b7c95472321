"""What a run found, in sentences that follow from its numbers."""

from __future__ import annotations

from .records import MetricRow, Result

TASK = "concept_identification"


def find(result: Result) -> list[str]:
    """The sentences of a result: what was measured, then one or two per verbalizer under test."""
    headline = result.headline_scorer
    sentences = []
    if not any(scorer.ranks for scorer in result.scorers):
        sentences.append("No scorer passed its gate on validation texts: these numbers must not rank anything.")
    if not all(scorer.forms_marked for scorer in result.scorers):
        sentences.append(
            "The pack has no texts that name its concepts as a verbalizer would: the scorers were tested on held-out "
            "texts of the concepts, and whether they know a concept by its name was not tested."
        )
    tested = [name for name, v in result.verbalizers.items() if v.card["role"] in ("submitted", "baseline")]
    for name in tested:
        sentences += _about(result, name, headline)
    ceiling = next((n for n, v in result.verbalizers.items() if v.card["role"] == "ceiling"), None)
    if ceiling is not None:
        sentences += _about_ceiling(result, ceiling, headline)
    return [*sentences, _about_behaviour(result)]


def _about(result: Result, name: str, scorer: str) -> list[str]:
    at = {"task": TASK, "verbalizer": name, "scorer": scorer, "kind": "function", "level": "matched"}
    natural = result.one(metric="auroc_in_pairs", arm="natural", injection="readout", **at)
    steered = result.one(metric="auroc_in_pairs", arm="steered", injection="readout", **at)
    gap = result.one(metric="auroc_gap", injection="readout", **at)
    if natural is None or steered is None or gap is None:
        return [f"{name}: there were too few token-matched pairs to compare natural with steered."]
    seen = _sees(natural)
    seen_steered = _sees(steered)
    if not seen and not seen_steered:
        first = (
            f"{name} does not name the concept better than chance on natural activations ({_show(natural)}), nor on "
            f"steered ones of matched evidence ({_show(steered)}), so the gap between them says nothing yet"
        )
    elif _excludes(gap, 0):
        worse = (gap.value or 0) < 0
        first = (
            f"{name} identifies concepts {'worse' if worse else 'better'} on steered than on natural activations at "
            f"matched evidence: {_show(steered)} against {_show(natural)}, a gap of {_show(gap, signed=True)}"
        )
    else:
        first = (
            f"{name} identifies concepts on natural activations with AUROC {_show(natural)} and on steered ones of "
            f"matched evidence with {_show(steered)}; the gap of {_show(gap, signed=True)} cannot be told from zero"
        )
    return [first + ".", *_about_leads(result, name, scorer), *_about_dose(result, name, scorer)]


def _about_leads(result: Result, name: str, scorer: str) -> list[str]:
    """On all natural items: which others a submitted verbalizer is above, below, and cannot be told from."""
    leads = result.select(
        task=TASK, metric="auroc_lead", verbalizer=name, scorer=scorer, arm="natural", kind="function"
    )
    if result.verbalizers[name].card["role"] != "submitted" or not leads:
        return []
    floors = [row for row in leads if result.verbalizers[row.versus or ""].card["role"] == "floor"]
    others = [row for row in leads if row not in floors]
    above = ["its floors"] if floors and all(_side(row) > 0 for row in floors) else _list_leads(floors, 1)
    parts = {
        "above": above + _list_leads(others, 1),
        "below": _list_leads(floors + others, -1),
        "not to be told from": _list_leads(others, 0) + ([] if above == ["its floors"] else _list_leads(floors, 0)),
    }
    said = "; ".join(f"{word} {', '.join(names)}" for word, names in parts.items() if names)
    return [f"On the same natural activations {name} is {said}."]


def _list_leads(rows: list[MetricRow], side: int) -> list[str]:
    return [f"{row.versus} ({_show(row, signed=True)})" for row in rows if _side(row) == side]


def _side(row: MetricRow) -> int:
    """1 where a difference is above 0, -1 where it is below, 0 where its interval holds 0.

    A difference that is the same in every unit has no interval, and no doubt about its sign.
    """
    low, high = (row.value or 0.0 if bound is None else bound for bound in (row.low, row.high))
    return int(low > 0) - int(high < 0)


def _about_dose(result: Result, name: str, scorer: str) -> list[str]:
    half = result.one(
        task="dose_response", metric="r50", verbalizer=name, scorer=scorer, arm="steered", injection="readout"
    )
    if half is None or (half.value is None and half.censored_at is None):
        return []
    if half.value is None:
        end = f"r = {half.censored_at:g}"
        return [
            f"The texts of {name} do not come halfway to the ceiling by {end}, however far the activation is moved."
        ]
    beyond = "?" if half.censored_at is None else f"> {half.censored_at:g}"
    low, high = (beyond if bound is None else f"{bound:.2f}" for bound in (half.low, half.high))
    return [
        f"Moved along the concept's direction, the texts of {name} come halfway to the ceiling at r = {half.value:.2f} "
        f"[{low}, {high}]."
    ]


def _about_behaviour(result: Result) -> str:
    """At which strength of the gate most directions steer, and how many."""
    passing = {r: sum(row.steers for row in result.gate if row.r == r) for r in {row.r for row in result.gate}}
    best = max(passing, key=lambda r: (passing[r], -r))
    if not passing[best]:
        return "No direction passed the behaviour gate: nothing here is known to steer."
    return (
        f"Added upstream at r = {best:g}, {passing[best]} of {len(result.concepts)} directions turn what the subject "
        "writes toward their concept and leave it fluent."
    )


def _about_ceiling(result: Result, name: str, scorer: str) -> list[str]:
    at = {"task": TASK, "metric": "auroc_in_pairs", "verbalizer": name, "scorer": scorer, "kind": "function"}
    natural = result.one(arm="natural", injection="readout", level="matched", **at)
    steered = result.one(arm="steered", injection="readout", level="matched", **at)
    if natural is None or steered is None:
        return []
    return [
        f"A linear probe on the same vectors reaches {_show(natural)} on natural and {_show(steered)} on steered "
        "activations: that is how much there is to be said."
    ]


def _sees(row: MetricRow) -> bool:
    return row.low is not None and row.low > 0.5


def _excludes(row: MetricRow, null: float) -> bool:
    return row.low is not None and row.high is not None and (row.low > null or row.high < null)


def _show(row: MetricRow, *, signed: bool = False) -> str:
    if row.value is None:
        return "undefined"
    sign = "+" if signed else ""
    if row.low is None or row.high is None:
        return f"{row.value:{sign}.2f}"
    return f"{row.value:{sign}.2f} [{row.low:{sign}.2f}, {row.high:{sign}.2f}]"
