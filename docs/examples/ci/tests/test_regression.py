"""The same check as a test. Where the verbalizer is slow, leave it to the workflow."""

from __future__ import annotations

from my_verbalizer import describe


def test_describe_is_no_worse_than_the_baseline(nlabench):
    nlabench.assert_no_regression(describe, baseline="evaluation/baseline", margin=0.15)
