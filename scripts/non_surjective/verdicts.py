"""How a row is judged: rules on numbers. No verdict is written anywhere but here."""

from __future__ import annotations

from collections.abc import Sequence

from scipy import stats

from .rows import Verdict

#: A verdict, and why.
Judged = tuple[Verdict, str]

#: A relation counts as growing from this rank correlation on.
LEAST_CORRELATION = 0.9
SIGNIFICANCE = 0.05

NOTHING_PUBLISHED: Judged = ("no figure", "the paper gives no figure and states no property of this")


def judge_number(ours: float, published: float, tolerance: float, *, relative: bool = False) -> Judged:
    """`same` where our figure lies within the tolerance of the published one, else `differs`."""
    room = tolerance * abs(published) if relative else tolerance
    near = abs(ours - published) <= room
    told = f"{ours:.4g} against {published:.4g}, tolerance {room:.2g}"
    return ("same" if near else "differs"), told


def judge_count(ours: tuple[int, int], published: tuple[int, int]) -> Judged:
    """`same` where the counts are equal as shares (10 of 10 and 4 of 4), else `differs`. Pairs are (hits, of)."""
    if not ours[1]:
        return "not rerun", "nothing was counted"
    equal = ours[0] * published[1] == published[0] * ours[1]
    return ("same" if equal else "differs"), f"{ours[0]} of {ours[1]} against {published[0]} of {published[1]}"


def judge_property(what: str, holds: bool, figures: str) -> Judged:
    """`same shape` where a stated property holds in our data, else `differs`."""
    return ("same shape" if holds else "differs"), f"{what}: {'yes' if holds else 'no'} ({figures})"


def judge_growth(xs: Sequence[float], ys: Sequence[float], what: str) -> Judged:
    """`same shape` where ys grow with xs: a rank correlation of at least 0.9, and the last above the first."""
    rho = rank_correlation(xs, ys)
    # Five values with two neighbours exchanged have 0.9 exactly, which floating point puts a little below.
    holds = rho >= LEAST_CORRELATION - 1e-9 and ys[-1] > ys[0]
    return judge_property(f"{what} (rank correlation at least {LEAST_CORRELATION})", holds, f"{rho:.2f}")


def judge_rise(before: Sequence[bool], after: Sequence[bool], what: str) -> Judged:
    """`same shape` where a share rises and an exact one-sided McNemar test on the same requests has p at most 0.05.

    With few requests a rise may be there and not be shown: then `differs`, and why says that it is not shown.
    """
    p = mcnemar_p(before, after)
    rises = sum(after) > sum(before)
    verdict, why = judge_property(
        f"{what} (exact McNemar p at most {SIGNIFICANCE})",
        rises and p <= SIGNIFICANCE,
        f"{sum(before)} and {sum(after)} of {len(before)}, p = {p:.2g}",
    )
    if rises and verdict == "differs":
        why += "; it rises, but with so few requests that is not shown"
    return verdict, why


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Spearman's, by rising xs; 0 where either does not vary."""
    if len(xs) != len(ys) or len(xs) < 2:
        raise ValueError(f"{len(xs)} and {len(ys)} values were given; a rank correlation needs two or more pairs")
    if len(set(xs)) == 1 or len(set(ys)) == 1:
        return 0.0
    return float(stats.spearmanr(xs, ys).statistic)


def mcnemar_p(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Exact one-sided p that `after` succeeds more often than `before` on the same requests."""
    gained = sum(a and not b for b, a in zip(before, after, strict=True))
    lost = sum(b and not a for b, a in zip(before, after, strict=True))
    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost, alternative="greater").pvalue)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95% Wilson interval of a share.

    Raises:
        ValueError: nothing was counted.
    """
    if not n:
        raise ValueError("a share of nothing has no interval: count something")
    found = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
