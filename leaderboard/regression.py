"""Is a candidate worse than a baseline? A paired test per metric, on the same items, against a margin.

Let d be the true difference, candidate - baseline, in the direction that is good, and m the margin. Two one-sided tests
at `LEVEL` ask about d = -m: *pass* rejects "d is -m or below" (a test of non-inferiority), *fail* rejects "d is -m or
above" (its mirror). Where neither is rejected, the items *cannot tell*. So a candidate that lost a margin or more
passes a metric in at most 5% of runs, and one that lost a margin or less fails it in at most 5%.

All metrics must pass for the whole to pass, which needs no correction: with any of them a margin down, the whole passes
in at most 5%. The whole fails when one metric does; of k metrics that are each exactly a margin down, one or more fail
in up to k times 5%.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..benchmark.errors import BadInput
from ..benchmark.records import MetricPair, MetricRow, Result, finite
from ..benchmark.statistics import Estimate, interval_arrays, paired_difference

Verdict = Literal["pass", "fail", "cannot tell"]

#: Of each of the two one-sided tests.
LEVEL = 0.95

#: What is checked where nothing is named, with how it is written out. `{r}` is the grid's strength that is nearest to
#: the matched ones.
HEADLINE = {
    "natural": "concept_identification.auroc_in_pairs:arm=natural,injection=readout,kind=function",
    "steered": "concept_identification.auroc_in_pairs:arm=steered,injection=readout,kind=function",
    "false_claims": "confabulation.false_claims:arm=permuted,r={r}",
}

#: Metrics of which less is better; of others more is, unless a choice says `better=lower`.
LOWER_IS_BETTER = frozenset({"false_claims", "false_claims_over_neutral", "auroc_lost"})

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "cannot tell": 3}


@dataclass(frozen=True)
class MetricChoice:
    """Which figure is checked. name: as it was asked for. conditions: fields of its row, as text."""

    name: str
    task: str
    metric: str
    conditions: Mapping[str, str]
    lower_is_better: bool


@dataclass(frozen=True)
class MetricCheck:
    """One metric of both, and what the paired test says.

    difference: candidate - baseline, where above 0 is better (turned round where less is better). low, high: the bounds
    of the two one-sided tests, which is its two-sided 90% interval; None where there is none, and `note` says why.
    power: how often a drop of twice the margin would be found, with this many items that differ as these do.
    """

    name: str
    metric: str
    baseline: float
    candidate: float
    lower_is_better: bool
    difference: float
    low: float | None
    high: float | None
    margin: float
    verdict: Verdict
    power: float | None
    n_items: int
    n_concepts: int
    n_prompts: int
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """A candidate against a baseline, metric by metric.

    baseline, candidate: their verbalizers' names, with their runs. benchmark: what was measured. warnings: of the
    candidate as a program, such as items that it failed on.
    """

    baseline: str
    candidate: str
    benchmark: str
    checks: tuple[MetricCheck, ...]
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Fail where one metric does, pass where all do."""
        verdicts = {check.verdict for check in self.checks}
        return "fail" if "fail" in verdicts else "cannot tell" if "cannot tell" in verdicts else "pass"

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 cannot tell (2 is bad input everywhere)."""
        return EXIT_CODES[self.verdict]


def choose_metrics(wanted: Sequence[str], strength: float | None) -> list[MetricChoice]:
    """The metrics that are asked for, or the headline ones: `natural`, `steered`, `false_claims`, or others as
    `task.metric`, with the fields of their row where that fits several: `task.metric:arm=steered,r=0.3`.

    strength: of the headline's false claims; None where the run has none.

    Raises:
        BadInput: no such form.
    """
    return [_parse_choice(name, strength) for name in (wanted or HEADLINE)]


def check_metrics(
    pairs: Sequence[MetricPair], choices: Sequence[MetricChoice], margin: float, scorer: str
) -> list[MetricCheck]:
    """The paired test of each chosen metric. scorer: whose, where a choice names none and a metric has several.

    Raises:
        BadInput: a choice fits no metric, or several; or the margin is below 0.
    """
    if not (np.isfinite(margin) and margin >= 0):
        raise BadInput(
            f"The margin is {margin}; expected the drop that is still fine, 0 or more and in the metric's units, such "
            "as 0.05."
        )
    return [_check(_find_pair(pairs, choice, scorer), choice, margin) for choice in choices]


def find_verdicts(difference: Estimate, margin: float) -> NDArray[np.str_]:
    """The verdict on each set of a paired difference in which above 0 is better."""
    low, high = _bounds(difference)
    with np.errstate(invalid="ignore"):
        return np.where(low > -margin, "pass", np.where(high < -margin, "fail", "cannot tell"))


def find_power(difference: Estimate, margin: float) -> NDArray[np.float64]:
    """How often a true drop of twice the margin is found (the verdict is *fail*), per set of a paired difference.

    The estimate is taken as normal around the drop with the standard error and the reach of its bound as they are here:
    units are taken to differ then as they do now. nan where nothing varies.
    """
    low, high, se = interval_arrays(difference, _two_sided())
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(stats.norm.cdf((margin - (high - low) / 2) / se))


def check_comparable(baseline: Result, candidate: Result) -> None:
    """Check that two runs are of one benchmark: suite, subject, site, pack and scorers.

    Raises:
        BadInput: they are not; it says what differs.
    """
    here, there = _benchmark_of(baseline), _benchmark_of(candidate)
    differences = [
        f"{name}: {_show(here.get(name))} in the baseline, {_show(there.get(name))} in the candidate"
        for name in dict.fromkeys([*here, *there])
        if here.get(name) != there.get(name)
    ]
    moved = [
        a.name
        for a, b in zip(baseline.concepts, candidate.concepts, strict=False)
        if a.name == b.name and not np.isclose(a.length or 0, b.length or 0, rtol=SAME_DIRECTION, atol=0)
    ]
    if moved and not differences:
        differences = [f"the directions of {len(moved)} concepts (such as {moved[0]!r}) are of other lengths"]
    if differences:
        raise BadInput(
            f"The two runs are not of one benchmark. {'; '.join(differences)}. Results are compared within one suite "
            "version, subject, site and pack only: run the candidate as the baseline was run."
        )


#: How far the length of a direction may lie from the other run's, as a share: more than float32 and another processor
#: make of it, and less than any other text does.
SAME_DIRECTION = 1e-3


def choose_verbalizers(
    baseline: Result, candidate: Result, verbalizer: str | None, baseline_verbalizer: str | None
) -> tuple[str, str]:
    """Whose texts are compared, in the baseline and in the candidate: those that are named, or the one under test.

    Raises:
        BadInput: no such verbalizer, or nothing says which one.
    """
    of_candidate = verbalizer or _under_test(candidate, "candidate", "verbalizer")
    in_both = of_candidate if of_candidate in baseline.verbalizers else None
    of_baseline = baseline_verbalizer or in_both or _under_test(baseline, "baseline", "baseline_verbalizer")
    for name, result, where in ((of_baseline, baseline, "baseline"), (of_candidate, candidate, "candidate")):
        if name not in result.verbalizers:
            raise BadInput(f"The {where} has no verbalizer {name!r}. It has {', '.join(result.verbalizers)}.")
    return of_baseline, of_candidate


def describe_benchmark(result: Result) -> str:
    """What was measured, in a line."""
    provenance = result.provenance
    suite = f"{provenance.suite.get('name')} (version {provenance.suite.get('version')})"
    return f"{provenance.subject}, block {provenance.layer}; suite {suite}, pack {provenance.pack}."


def _under_test(result: Result, where: str, option: str) -> str:
    for role in ("submitted", "baseline"):
        names = [name for name, record in result.verbalizers.items() if record.card.get("role") == role]
        if len(names) == 1:
            return names[0]
        if names:
            break
    raise BadInput(
        f"The {where} has {len(names)} verbalizers that could be meant: {', '.join(names or result.verbalizers)}. Name "
        f"one with --{option.replace('_', '-')} ({option}=…)."
    )


def _parse_choice(name: str, strength: float | None) -> MetricChoice:
    if name == "false_claims" and strength is None:
        raise BadInput("The baseline has no false claims: its suite has no task confabulation. Name other metrics.")
    written = HEADLINE.get(name, name).format(r=strength) if name in HEADLINE else name
    head, _, tail = written.partition(":")
    task, _, metric = head.partition(".")
    conditions = dict(part.partition("=")[::2] for part in tail.split(",") if tail)
    better = conditions.pop("better", "lower" if metric in LOWER_IS_BETTER else "higher")
    unknown = [field for field, value in conditions.items() if field not in _FIELDS or not value]
    if not task or not metric or unknown or better not in ("lower", "higher"):
        raise BadInput(
            f"There is no metric {name!r}. Name {', '.join(HEADLINE)}, or a metric as task.metric, with what tells it "
            f"from others after a colon: concept_identification.auroc:arm=steered,injection=readout,r=0.3. Fields are "
            f"{', '.join(_FIELDS)}, and better=lower or better=higher."
        )
    return MetricChoice(name, task, metric, conditions, better == "lower")


#: The fields of a metric row that a choice may name.
_FIELDS = ("scorer", "arm", "injection", "level", "kind", "r")


def _find_pair(pairs: Sequence[MetricPair], choice: MetricChoice, scorer: str) -> MetricPair:
    of_task = [pair for pair in pairs if pair.baseline.row.task == choice.task]
    named = [pair for pair in of_task if pair.baseline.row.metric == choice.metric and _is_whole(pair.baseline.row)]
    if not named:
        metrics = sorted({pair.baseline.row.metric for pair in of_task if _is_whole(pair.baseline.row)})
        raise BadInput(
            f"{choice.name!r} is no metric that both runs have with a paired difference. {choice.task} has "
            f"{', '.join(metrics) or 'none'}. (r50, places and figures of one concept have none.)"
        )
    fitting = [pair for pair in named if _fits(pair.baseline.row, choice.conditions)]
    if "scorer" not in choice.conditions:
        fitting = [pair for pair in fitting if pair.baseline.row.scorer == scorer] or fitting
    if len(fitting) != 1:
        shown = [_describe(pair.baseline.row) for pair in (fitting or named)]
        more = f" and {len(shown) - 6} more" if len(shown) > 6 else ""
        raise BadInput(
            f"{choice.name!r} fits {len(fitting)} figures; expected one. There are {'; '.join(shown[:6])}{more}. Say "
            f"which after a colon, as in {choice.task}.{choice.metric}:{shown[0]}."
        )
    return fitting[0]


def _is_whole(row: MetricRow) -> bool:
    """Whether a row is a figure of its own: of all concepts, and no difference from another verbalizer."""
    return row.group is None and row.versus is None


def _fits(row: MetricRow, conditions: Mapping[str, str]) -> bool:
    for name, wanted in conditions.items():
        found = getattr(row, name)
        same = found is not None and _as_number(wanted) == found if name == "r" else str(found) == wanted
        if not same:
            return False
    return True


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _describe(row: MetricRow) -> str:
    fields = {field: getattr(row, field) for field in _FIELDS}
    return ",".join(f"{field}={value}" for field, value in fields.items() if value is not None)


def _check(pair: MetricPair, choice: MetricChoice, margin: float) -> MetricCheck:
    a, b = pair.baseline, pair.candidate
    difference = (
        paired_difference(a.estimate, b.estimate)
        if choice.lower_is_better
        else paired_difference(b.estimate, a.estimate)
    )
    low, high = _bounds(difference)
    return MetricCheck(
        name=choice.name,
        metric=f"{choice.task}.{choice.metric}",
        baseline=float(a.estimate.point),
        candidate=float(b.estimate.point),
        lower_is_better=choice.lower_is_better,
        difference=float(difference.point) + 0.0,  # no minus before a zero
        low=finite(float(low)),
        high=finite(float(high)),
        margin=margin,
        verdict=str(find_verdicts(difference, margin)),  # type: ignore[arg-type]
        power=finite(float(find_power(difference, margin))),
        n_items=a.row.n_items,
        n_concepts=difference.n_concepts,
        n_prompts=difference.n_prompts,
        note=_note(difference, low),
    )


def _bounds(difference: Estimate) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper one-sided bounds [*sets].

    Where no unit differs from another, the interval says nothing, for or against. A difference of exactly 0 in every
    unit is that of two that are the same here. Another one, the same in all of n units, is bounded exactly: units of
    which a share q has it are all that were drawn with probability q^n, and the others lie within the metric's range.
    """
    low, high, se = interval_arrays(difference, _two_sided())
    alike = se == 0
    if not np.any(alike):
        return low, high
    n = min(n for n in (difference.n_concepts, difference.n_prompts) if n)
    share = (1 - LEVEL) ** (1 / n)
    least, most = difference.bounds or (-np.inf, np.inf)
    point = difference.point
    same = alike & (np.abs(point) <= 1e-12)
    low = np.where(same, 0.0, np.where(alike, share * point + (1 - share) * least, low))
    high = np.where(same, 0.0, np.where(alike, share * point + (1 - share) * most, high))
    return low, high


def _note(difference: Estimate, low: Any) -> str:
    if not np.isfinite(low):
        return "too few concepts or prompts for an interval"
    if interval_arrays(difference).se == 0:
        return "the same in every unit" if abs(float(difference.point)) <= 1e-12 else "no unit differs from another"
    return ""


def _two_sided() -> float:
    """The level of the interval whose ends are the two one-sided bounds."""
    return 2 * LEVEL - 1


def _benchmark_of(result: Result) -> dict[str, Any]:
    """What decides which items there are and how their texts are scored, by what to call it."""
    provenance = result.provenance
    # Readers run beside a verbalizer and change none of its items.
    suite = {key: value for key, value in provenance.suite.items() if key not in ("name", "version", "readers")}
    return {
        "suite": f"{provenance.suite.get('name')}, version {provenance.suite.get('version')}",
        **{f"{key} of the suite": value for key, value in suite.items()},
        **{f"version of {task}": version for task, version in provenance.tasks.items()},
        # By their content: a folder or a file may have another name where the other run was made.
        "subject": _Content(provenance.subject, provenance.subject_fingerprint),
        "dtype": provenance.dtype,
        "layer": provenance.layer,
        "injection layer": provenance.injection_layer,
        "tokens of the preamble": provenance.preamble_tokens,
        "pack": _Content(provenance.pack, provenance.pack_fingerprint),
        "readout prompts": provenance.readout_prompts,
        **{f"scorer {scorer.name}": scorer.fingerprint for scorer in result.scorers},
    }


@dataclass(frozen=True)
class _Content:
    """Something that is told from others by its fingerprint, whatever its name."""

    name: str = field(compare=False)
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint})"


def _show(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
