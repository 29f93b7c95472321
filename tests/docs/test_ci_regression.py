"""What docs/ci-regression.md says is so: its workflow's own steps are run, and its test, on the default subject."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from nlabench.cli import app
from nlabench.leaderboard.regression import EXIT_CODES, HEADLINE, LOWER_IS_BETTER
from typer.main import get_command

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "ci"
PAGE = (ROOT / "docs" / "ci-regression.md").read_text(encoding="utf-8")


def read_workflow(name: str) -> dict[Any, Any]:
    """A workflow; YAML 1.1 reads its key `on` as true."""
    loaded: dict[Any, Any] = yaml.safe_load((EXAMPLE / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    return loaded


CHECK, CALLER = read_workflow("nlabench-check.yml"), read_workflow("verbalizer.yml")
INPUTS: dict[str, dict[str, Any]] = CHECK[True]["workflow_call"]["inputs"]
STEPS = {step["name"]: step for step in CHECK["jobs"]["check"]["steps"] if "name" in step}


# -- without a run --------------------------------------------------------------------------------------------------


def test_files_on_the_page_are_those_of_the_example_and_links_lead_somewhere() -> None:
    shown = dict(re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    assert set(shown) == {"verbalizer.yml", "test_regression.py"}
    for name, content in shown.items():
        (file,) = EXAMPLE.rglob(name)
        assert content == file.read_text(encoding="utf-8"), name
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link


def test_the_caller_gives_what_the_workflow_asks_and_nothing_else() -> None:
    (job,) = CALLER["jobs"].values()
    assert (EXAMPLE / job["uses"]).is_file()
    required = {name for name, spec in INPUTS.items() if spec.get("required")}
    assert required <= set(job["with"]) <= set(INPUTS)
    for name in INPUTS:
        assert f"`{name}`" in PAGE


def test_no_input_is_pasted_into_a_script() -> None:
    for step in STEPS.values():
        assert "${{" not in step.get("run", "")


def test_every_option_of_the_workflow_and_the_page_exists() -> None:
    scripts = "".join(step.get("run", "") for step in STEPS.values()) + PAGE
    commands = re.findall(r"nlabench (run|check) ((?:[^\n`]|\\\n)*)", scripts)
    assert len(commands) > 3
    for name, line in commands:
        known = {option for p in get_command(app).commands[name].params for option in p.opts}  # type: ignore[attr-defined]
        assert set(re.findall(r"--[a-z-]+", line)) <= known, line


def test_the_page_has_every_verdict_with_its_code_and_every_headline_metric() -> None:
    for verdict, code in EXIT_CODES.items():
        assert re.search(rf"\| \*{verdict}\* \| {code} \|", PAGE), verdict
    for name in (*HEADLINE, *LOWER_IS_BETTER):
        assert f"`{name}`" in PAGE, name


# -- the workflow's steps, and the test -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """The example as a checkout, with a baseline that the page's command makes of a suite that is small enough."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs", "__pycache__"))
    shutil.copy(ROOT / "docs" / "examples" / "small.toml", folder / "small.toml")
    (folder / "cache").symlink_to(shared_cache)
    (command,) = re.findall(r"^```bash run=baseline\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    done = follow(folder, command.replace("--suite quick", "--suite small.toml"))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def follow(folder: Path, commands: str, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run commands as a step of the workflow does, with its inputs at their defaults or as given."""
    defaults = {name.upper(): str(spec.get("default", "")) for name, spec in INPUTS.items()}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ, **defaults, "VERBALIZER": "my_verbalizer:describe", "SUITE": "small.toml", "PATH": path,
        "NLABENCH_CACHE": str(folder / "cache"), "GITHUB_STEP_SUMMARY": str(folder / "summary.md"), **inputs,
    }  # fmt: skip
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", commands], cwd=folder, env=environment, text=True, capture_output=True,
        check=False,
    )  # fmt: skip


@pytest.mark.slow
class TestWorkflow:
    def test_the_same_verbalizer_passes_and_the_summary_says_so(self, repository: Path) -> None:
        for step in ("Run", "Check"):
            done = follow(repository, STEPS[step]["run"])
            assert done.returncode == 0, done.stdout + done.stderr
        assert "✅ nlabench check: pass" in (repository / "summary.md").read_text(encoding="utf-8")
        assert (repository / "runs" / "check.xml").is_file()

    def test_what_cannot_be_told_is_a_warning_or_a_failure_as_the_job_says(self, repository: Path) -> None:
        code = (repository / "my_verbalizer.py").read_text(encoding="utf-8").replace("largest at", "smallest at")
        code = code.replace(".abs()", ".abs().neg()")
        (repository / "other_verbalizer.py").write_text(code, encoding="utf-8")
        done = follow(repository, STEPS["Run"]["run"], VERBALIZER="other_verbalizer:describe")
        assert done.returncode == 0, done.stderr
        done = follow(repository, STEPS["Check"]["run"])
        assert (done.returncode, "::warning::nlabench cannot tell" in done.stdout) == (0, True), done.stdout
        assert follow(repository, STEPS["Check"]["run"], UNDECIDED="fail").returncode == 3

    def test_runs_that_cannot_be_compared_fail_the_job(self, repository: Path) -> None:
        done = follow(repository, STEPS["Check"]["run"], BASELINE="nowhere")
        assert done.returncode == 2
        assert "There is no result at nowhere" in done.stderr

    def test_the_test_of_the_page_passes(self, repository: Path) -> None:
        installed = any(entry.name == "nlabench" for entry in importlib.metadata.entry_points(group="pytest11"))
        plugin = (
            "" if installed else "-p nlabench.pytest_plugin"
        )  # a checkout's entry points may be of an older install
        done = follow(repository, f"{sys.executable} -m pytest -q {plugin} -p no:cacheprovider --rootdir . tests")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 passed" in done.stdout
