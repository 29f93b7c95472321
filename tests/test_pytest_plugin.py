"""The pytest plugin, on tests of somebody else's repository; `nlabench.run` is one that copies a finished run."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from nlabench.benchmark.records import read_result
from nlabench.benchmark.repeating import repeat_settings
from nlabench.benchmark.suites import STANDARD, load_suite

pytest_plugins = ["pytester"]

#: Where the checkout's entry points are not installed (anew), the plugin is named by its module.
_INSTALLED = any(entry.name == "nlabench" for entry in importlib.metadata.entry_points(group="pytest11"))
PLUGIN = () if _INSTALLED else ("-p", "nlabench.pytest_plugin")

CONFTEST = """
import shutil
import nlabench as package
import pytest

@pytest.fixture(autouse=True)
def copy_a_run(monkeypatch):
    def run(verbalizers, settings, *, out):
        (verbalizer,) = verbalizers
        shutil.copytree(verbalizer, out, dirs_exist_ok=True)
        print("ran", settings.suite, settings.layer, settings.pack)
    monkeypatch.setattr(package, "run", run, raising=False)
"""


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    write_planted_run: Callable[..., Path],
    say_planted: Callable[..., list[str]],
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    silent = {"baseline": 0.1, "better": 0.0, "worse": 0.7, "close": 0.12}
    return {
        name: write_planted_run(folder / name, {"mine": say_planted(share, seed=name == "close")})
        for name, share in silent.items()
    }


def check(pytester: pytest.Pytester, runs: dict[str, Path], candidate: str, more: str = "") -> pytest.RunResult:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        f"""
        def test_it(nlabench):
            found = nlabench.assert_no_regression({str(runs[candidate])!r}, baseline={str(runs["baseline"])!r}, {more})
            assert found.verdict == "pass"
        """
    )
    return pytester.runpytest_inprocess(*PLUGIN, "-p", "no:xdist", "-rs")


def test_a_verbalizer_that_is_no_worse_passes(pytester: pytest.Pytester, runs: dict[str, Path]) -> None:
    check(pytester, runs, "better").assert_outcomes(passed=1)


def test_one_that_is_worse_fails_with_the_table(pytester: pytest.Pytester, runs: dict[str, Path]) -> None:
    done = check(pytester, runs, "worse")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*natural *fail*", "*Verdict: fail*"])
    assert "in assert_no_regression" not in done.stdout.str()  # the failure is shown where the test called


def test_what_cannot_be_told_fails_unless_the_test_says_otherwise(
    pytester: pytest.Pytester, runs: dict[str, Path]
) -> None:
    done = check(pytester, runs, "close", "margin=0.001")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*Verdict: cannot tell*"])
    check(pytester, runs, "close", "margin=0.001, undecided='skip'").assert_outcomes(skipped=1)


def test_the_run_is_made_as_the_baselines_was(pytester: pytest.Pytester, runs: dict[str, Path]) -> None:
    done = check(pytester, runs, "worse", "pack='elsewhere.jsonl'")
    (line,) = re.findall(r"^ran (\S+) (\S+) (\S+)$", done.stdout.str(), re.MULTILINE)
    suite, layer, pack = line
    recorded = read_result(runs["baseline"] / "result.json").provenance
    assert load_suite(suite).model_dump(mode="json") == recorded.suite
    assert (int(layer), pack) == (recorded.layer, "elsewhere.jsonl")


def test_settings_are_the_recorded_ones_and_code_of_a_checkpoint_is_not_trusted(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    result = read_result(runs["baseline"] / "result.json")
    arguments = {"subject": "some/model", "pack": "mine.jsonl", "trust_remote_code": True, "device": "cuda:3"}
    given = {"suite": STANDARD.model_dump(mode="json"), "arguments": arguments, "dtype": "bfloat16"}
    settings = repeat_settings(
        result.model_copy(update={"provenance": result.provenance.model_copy(update=given)}), tmp_path
    )
    assert (settings.suite, settings.subject, settings.pack) == ("standard", "some/model", "mine.jsonl")
    assert (settings.layer, settings.injection_layer, settings.dtype) == (2, 1, "bfloat16")
    assert (settings.scorers, settings.trust_remote_code, settings.device) == (("words",), False, "auto")


def test_where_no_test_asks_for_it_the_plugin_costs_next_to_nothing(tmp_path: Path) -> None:
    script = (
        "import pytest, sys, nlabench.pytest_plugin; print([m for m in ('torch', 'numpy', 'rich') if m in sys.modules])"
    )
    command = [sys.executable, "-X", "importtime", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == "[]"
    (microseconds,) = re.findall(r"\|\s+(\d+) \| nlabench\.pytest_plugin$", done.stderr, re.MULTILINE)
    assert int(microseconds) < 50_000
