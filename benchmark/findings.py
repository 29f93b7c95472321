"""What a run found, in sentences that follow from its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .records import MetricRow, Result
from .said import cross
from .text_controls import MEANINGS

TASK = "concept_identification"

#: A test over so few prompts a concept misses what is not said clearly.
FEW_PROMPTS = 4

Place = tuple[str, str, float | None]  # arm, injection, r


def find(result: Result) -> list[str]:
    """The sentences of a result: what was measured, then what each verbalizer under test did in the tasks that ran."""
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
        if result.verbalizers[name].card["role"] == "submitted":
            sentences += _about_sayings(result, name)
            sentences += _about_reconstruction(result, name)
            sentences += _about_information(result, name, headline)
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


def crossing_strength(result: Result) -> float | None:
    """Where *steers x said* is told: of the strengths that both were judged at, the one at which most directions steer.

    The smallest of several; None where there is none.
    """
    common = {row.r for row in result.gate} & {row.r for row in result.said}
    steering = {r: sum(row.steers for row in result.gate if row.r == r) for r in common}
    return max(steering, key=lambda r: (steering[r], -r), default=None)


def _about_sayings(result: Result, name: str) -> list[str]:
    """Of the directions that steer, how many the texts say; and how many that do not steer."""
    r, said = crossing_strength(result), [row for row in result.said if row.verbalizer == name]
    if r is None or not said:
        return []
    found = cross(result.gate, said, r)
    steering, both = len(found.steers_and_said) + len(found.steers_unsaid), len(found.steers_and_said)
    if not steering:
        return []
    steers = "1 direction steers" if steering == 1 else f"{steering} directions steer"
    idle = len(found.said_without_steering)
    few = max(row.n_prompts for row in said)
    caution = f" (each read in {few} prompts: what is not said clearly is missed)" if few <= FEW_PROMPTS else ""
    return [
        f"Upstream at r = {r:g}, {steers}; {name} says {both} of them, and says {idle} that "
        f"{'does' if idle == 1 else 'do'} not steer{caution}."
    ]


@dataclass(frozen=True)
class _Explained:
    """Of one cell, the variance explained over the held-out mean: by the own texts, by controls, and the leads."""

    where: str
    own: MetricRow
    controls: dict[str, MetricRow]
    leads: dict[str, MetricRow]


def _explained(rows: Iterable[MetricRow], where: str) -> list[_Explained]:
    """A list of one, or of none where the own texts' figure is not there."""
    values, leads = {}, {}
    for row in rows:
        metric, _, control = row.metric.partition(".")
        if metric == "fve_over_mean" and row.value is not None:
            values[control] = row
        elif metric == "fve_over_mean_lead" and row.versus is not None:
            leads[row.versus] = row
    own = values.pop("", None)
    return [] if own is None else [_Explained(where, own, values, leads)]


def _about_reconstruction(result: Result, name: str) -> list[str]:
    """What the texts explain over the held-out mean, beside the best control, and whether the quotes alone do it."""
    rows = result.select(task="reconstruction", verbalizer=name)
    matched = [row for row in rows if row.arm == "steered" and row.level == "matched"]
    cells = _explained([row for row in rows if row.arm == "natural"], "natural activations")
    cells += _explained(matched, "steered ones of matched evidence" if cells else "steered activations")
    if not cells:
        return []
    explained = " and ".join(f"{_show(cell.own)} on {cell.where}" for cell in cells)
    first = f"Of what the held-out mean leaves unexplained, the texts of {name} explain {explained}"
    controls = {control: row.value or 0.0 for control, row in cells[0].controls.items() if control in MEANINGS}
    if controls:
        best = max(controls, key=lambda control: controls[control])
        theirs = " and ".join(_show(cell.controls[best]) for cell in cells if best in cell.controls)
        first += f"; the best control ({best.replace('_', ' ')}) {theirs}"
        unbeaten = [cell.where for cell in cells if best in cell.leads and _side(cell.leads[best]) < 1]
        first += f", which they do not beat on {' nor on '.join(unbeaten)}" if unbeaten else ""
    return [first + ".", *_about_quotes(cells)]


def _about_quotes(cells: Sequence[_Explained]) -> list[str]:
    """What is left where the quotes are taken out of the texts; nothing where there was nothing to lose."""
    cells = [cell for cell in cells if _side(cell.own) > 0 and "quotes_stripped" in cell.controls]
    if not cells:
        return []
    left = " and ".join(_show(cell.controls["quotes_stripped"]) for cell in cells)
    verdicts = [_survival(cell) for cell in cells]
    if len(set(verdicts)) == 1:
        told = verdicts[0]
    else:
        told = ", ".join(f"{verdict} on {cell.where}" for cell, verdict in zip(cells, verdicts, strict=True))
    only = f" on {cells[0].where}" if len(cells) == 1 else ""
    return [f"Without the quotes in them{only} that is {left}: {told}."]


def _survival(cell: _Explained) -> str:
    if _side(cell.controls["quotes_stripped"]) < 1:
        return "it does not survive"
    lost = "quotes_stripped" in cell.leads and _side(cell.leads["quotes_stripped"]) > 0
    return "part of it survives" if lost else "it survives"


def strongest_readers(rows: Iterable[MetricRow], readers: set[str]) -> dict[Place, list[str]]:
    """Per cell, the readers of text with the highest AUROC among items that share their tokens: several where tied.

    rows: metric rows of privileged_information and one scorer.
    """
    best: dict[Place, tuple[float, list[str]]] = {}
    for row in rows:
        if row.metric != "auroc_same_tokens" or row.verbalizer not in readers or row.value is None:
            continue
        place = (row.arm, row.injection, row.r)
        highest, names = best.get(place, (-1.0, []))
        if row.value > highest:
            best[place] = row.value, [row.verbalizer]
        elif row.value == highest:
            names.append(row.verbalizer)
    return {place: names for place, (_, names) in best.items()}


def _about_information(result: Result, name: str, scorer: str) -> list[str]:
    """Where the words are the same: is more said than the strongest reader of text says, and from which r on?"""
    rows = result.select(task="privileged_information", scorer=scorer)
    readers = {other for other, record in result.verbalizers.items() if record.card["role"] == "reader"}
    strongest = strongest_readers(rows, readers)
    over = {
        (row.arm, row.injection, row.r): row
        for row in rows
        if row.metric == "information_over_text" and row.verbalizer == name
        and row.versus == strongest.get((row.arm, row.injection, row.r), [""])[0]
    }  # fmt: skip
    parts = []
    natural = over.get(("natural", "none", None))
    if natural is not None:
        side = {1: "above", -1: "below", 0: "not to be told from"}[_side(natural)]
        lead = _show(natural, signed=True)
        parts.append(
            f"{name} is {side} the strongest reader of text, {natural.versus}, on natural activations ({lead})"
        )
    grid = sorted(r for arm, injection, r in over if arm == "steered" and injection == "readout" and r is not None)
    if grid:
        subject = "on steered ones it" if parts else f"on steered activations {name}"
        parts.append(f"{subject} {_says_more([over['steered', 'readout', r] for r in grid])}")
    return [f"Where the words are the same, {'; '.join(parts)}."] if parts else []


def _says_more(leads: Sequence[MetricRow]) -> str:
    """From which r on the lead over readers of text stays above 0. leads: by rising r."""
    above = [_side(row) > 0 for row in leads]
    if not above[-1]:
        return f"does not say more than every reader at r = {leads[-1].r:g} ({_show(leads[-1], signed=True)})"
    first = leads[len(above) - above[::-1].index(False) if False in above else 0]
    onward = f"at r = {first.r:g}" if first is leads[-1] else f"from r = {first.r:g} on"
    return f"says more than any reader {onward} ({_show(first, signed=True)} there)"


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
