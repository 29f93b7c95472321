"""The command line as a newcomer meets it: help that teaches, and mistakes that cost one paragraph and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from nlabench.benchmark.concepts import load_pack, write_pack
from nlabench.cli import main

Call = Callable[..., subprocess.CompletedProcess[str]]


def nlabench(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nlabench", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.fixture
def nlabench_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The same in this process: another one takes five seconds to import torch and transformers."""

    def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["nlabench", *arguments])
        with mock.patch.dict(os.environ), pytest.raises(SystemExit) as ended:
            main()
        return subprocess.CompletedProcess(arguments, ended.value.code or 0, *capsys.readouterr())

    return call


def test_help_names_every_command_and_loads_no_model(tmp_path: Path) -> None:
    done = nlabench("--help", cwd=tmp_path)
    assert done.returncode == 0
    commands = ("run", "export", "score", "show", "validate-scorers", "verbalizers", "concepts", "fetch", "check")
    for command in (*commands, "serve", "export-checkpoint", "lint-checkpoint", "submit", "validate", "leaderboard"):
        assert command in done.stdout
    script = "import sys, nlabench.cli; print('torch' in sys.modules, 'transformers' in sys.modules)"
    heavy = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert heavy.stdout.split() == ["False", "False"]


def test_the_checkouts_folder_names_are_no_modules(tmp_path: Path) -> None:
    script = (
        "import sys, nlabench.cli, nlabench.benchmark.runner, nlabench.benchmark.task as t; t.known_tasks();"
        "print([n for n in ('benchmark', 'tasks', 'leaderboard') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--layer", "30"], "Layer 30 was asked for, but 'smollm2-135m-instruct-q4_1' has 30 blocks"),
        (["run", "--layer", "5", "--injection-layer", "5"], "The injection layer 5 is not before the site's layer 5"),
        (["run", "--suite", "huge"], "There is no suite 'huge'. Built in are quick, standard"),
        (["run", "--pack", "no.jsonl"], "There is no concept pack at 'no.jsonl'"),
        (["run", "--dtype", "int3"], "There is no dtype 'int3'"),
        (["run", "--subject", "all-minilm-l6-v2"], "'all-minilm-l6-v2' is a sentence embedder"),
        (["run", "--suite", "bad.toml"], "sets 'n_concepts' wrongly: Input should be greater than or equal to 2"),
        (["run", "--suite", "odd.toml"], "sets 'concepts' wrongly: Extra inputs are not permitted"),
        (["run", "--pack", "one.jsonl"], "has 1 concept(s). Identification needs at least two"),
        (["score", "nowhere", "--texts", "bad.toml", "--name", "x"], "There is no exported run at nowhere"),
        (["score", "nowhere", "--texts", "none.jsonl", "--name", "x"], "There is no file of texts at none.jsonl"),
        (["submit", "nowhere"], "There is no result at nowhere"),
        (["validate", "nowhere"], "There is no folder nowhere"),
        (["leaderboard", "show"], "There is no results store at leaderboard/results"),
        (["show", "nowhere"], "There is no result at nowhere/result.json"),
        (["concepts", "check", "broken.jsonl"], "broken.jsonl, line 2"),
    ],
)
def test_a_mistake_is_one_paragraph_and_exit_code_2(
    tmp_path: Path, nlabench_here: Call, arguments: list[str], said: str
) -> None:
    (tmp_path / "bad.toml").write_text('base = "quick"\nn_concepts = 1\n')
    (tmp_path / "odd.toml").write_text('base = "quick"\nconcepts = 3\n')
    one = '{"kind": "concept", "name": "a", "title": "a", "description": "About a.", "family": "f"}\n'
    (tmp_path / "one.jsonl").write_text(one)
    (tmp_path / "broken.jsonl").write_text(one + "{not json\n")
    # Tests of docs start these two in processes of their own.
    call = nlabench_here if arguments[0] in ("run", "score") else nlabench
    done = call(*arguments, cwd=tmp_path)
    message = " ".join(done.stderr.split())
    assert done.returncode == 2, done.stderr
    assert said in message
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_unknown_verbalizer_is_found_out_before_the_work(tmp_path: Path, nlabench_here: Call) -> None:
    done = nlabench_here("run", "--verbalizer", "mind-reader", cwd=tmp_path)
    assert done.returncode == 2
    message = " ".join(done.stderr.split())
    assert "There is no verbalizer 'mind-reader'. Known are activation-oracle, average-direction, constant" in message
    assert "reading the pack" not in done.stdout


def test_a_module_that_does_not_import_is_named_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import not_installed_anywhere\n")
    done = nlabench("run", "--verbalizer", "mine:describe", cwd=tmp_path)
    assert done.returncode == 2
    assert "'mine:describe' could not be imported: ModuleNotFoundError" in " ".join(done.stderr.split())


def test_a_broken_pack_is_listed_problem_by_problem(tmp_path: Path, nlabench_here: Call) -> None:
    write_pack(load_pack().select(3), tmp_path / "three.jsonl")
    done = nlabench_here("concepts", "check", "three.jsonl", cwd=tmp_path)
    assert done.returncode == 1
    assert "3 concepts" in done.stdout


def test_verbalizers_are_listed_with_what_they_do(tmp_path: Path) -> None:
    done = nlabench("verbalizers", cwd=tmp_path)
    assert done.returncode == 0
    for name in (
        "constant",
        "probe-ceiling",
        "nearest-text",
        "logit-lens",
        "patchscope",
        "last-token",
        "prompt-reader",
    ):
        assert name in done.stdout
