"""Estimates with intervals whose units are concepts and prompts.

A metric (`macro_auroc`, `cluster_mean`) returns an `Estimate`; `paired_difference`, `stack`, `contrast`, `area_between`
and `monotonicity` turn Estimates into Estimates; `interval` and `rank_intervals` read them.
"""

from .auroc import macro_auroc
from .dose import area_between, fit_isotonic, monotonicity, r50, r50_interval
from .estimate import Estimate, contrast, join, paired_difference, stack
from .interval import (
    Interval,
    IntervalArrays,
    benjamini_hochberg,
    calibrated_draws,
    interval,
    interval_arrays,
    intervals,
    p_values,
)
from .means import cluster_mean, cluster_ratio
from .pairs import Negatives
from .ranks import RankInterval, rank_intervals
from .resampling import CONCEPT_FREE, Clusters, Weights, resample

__all__ = [
    "CONCEPT_FREE",
    "Clusters",
    "Estimate",
    "Interval",
    "IntervalArrays",
    "Negatives",
    "RankInterval",
    "Weights",
    "area_between",
    "benjamini_hochberg",
    "calibrated_draws",
    "cluster_mean",
    "cluster_ratio",
    "contrast",
    "fit_isotonic",
    "interval",
    "interval_arrays",
    "intervals",
    "join",
    "macro_auroc",
    "monotonicity",
    "p_values",
    "paired_difference",
    "r50",
    "r50_interval",
    "rank_intervals",
    "resample",
    "stack",
]
