"""The pytest plugin: `def test_it(nlabench): nlabench.assert_no_regression(my_verbalizer, baseline="…")`.

pytest loads it wherever nlabench is installed, so it imports nothing of weight before a test asks for something.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from .leaderboard.regression import Comparison


class RegressionGuard:
    """What the fixture `nlabench` is: runs verbalizers as baselines were run, and compares the two."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders

    def assert_no_regression(
        self,
        verbalizer: Any,
        baseline: Path | str,
        *,
        margin: float = 0.05,
        metrics: Sequence[str] = (),
        baseline_verbalizer: str | None = None,
        undecided: Literal["fail", "skip"] = "fail",
        **changed: Any,
    ) -> Comparison:
        """Run a verbalizer on the baseline's suite, subject, site and pack, and check that no metric lost the margin.

        verbalizer: as for `nlabench.run`. baseline, margin, metrics, baseline_verbalizer: as for `nlabench.check`.
        undecided: what becomes of the test where the items cannot tell. changed: fields of `nlabench.RunSettings` that
        are other than in the baseline's run, such as where its subject or pack lies on this machine.

        Raises:
            AssertionError: a metric lost the margin, or it cannot be told and `undecided` is "fail".
            BadInput: the verbalizer cannot be run, or the two runs cannot be compared.
        """
        __tracebackhide__ = True
        from dataclasses import replace

        from . import check, run
        from .benchmark.repeating import repeat_settings
        from .benchmark.stored_run import read_record
        from .leaderboard.regression_reports import print_comparison

        folder = self._folders.mktemp("nlabench")
        settings = replace(repeat_settings(read_record(baseline), folder), **changed)
        run([verbalizer], settings, out=folder)
        found = check(baseline, folder, margin=margin, metrics=metrics, baseline_verbalizer=baseline_verbalizer)
        table = print_comparison(found)
        if found.verdict == "cannot tell" and undecided == "skip":
            pytest.skip(table)
        if found.verdict != "pass":
            raise AssertionError(table)
        return found


@pytest.fixture(scope="session")
def nlabench(tmp_path_factory: pytest.TempPathFactory) -> RegressionGuard:
    """Checks that a verbalizer has not become worse: `nlabench.assert_no_regression(verbalizer, baseline="…")`."""
    return RegressionGuard(tmp_path_factory)
