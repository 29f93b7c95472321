"""What is wrong with the arguments of the paper's scripts is told before a weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reproduce_nla_on_steered
import reproduce_non_surjective as command
import typer
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.subject import Subject
from non_surjective.many_shot import check_context
from subject_arguments import read_config

DEFAULT = "smollm2-135m-instruct-q4_1"


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("weights were read")


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "load_subject", refuse)
    monkeypatch.setattr(reproduce_nla_on_steered, "estimate_run", refuse)


def reproduce(tmp_path: Path, **given: Any) -> None:
    usual: dict[str, Any] = {
        "wanted": ["E6"], "name": DEFAULT, "layer": None, "quick": True, "prompts": None, "dtype": "auto",
        "device": "cpu", "shots": 8, "seed": 0, "out": tmp_path,
    }  # fmt: skip
    command.reproduce(**{**usual, **given})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"wanted": ["E9"]}, "no table 'E9'"),
        ({"shots": 0}, "0 demonstrations were asked for; there are 32"),
        ({"shots": 64}, "64 demonstrations were asked for; there are 32"),
        ({"dtype": "float8"}, "no dtype 'float8' here; expected auto, float32, bfloat16"),
        ({"prompts": Path("missing.json")}, "no list of prompts"),
        ({"layer": 0}, "Layer 0 was asked for: the vector is added to the input"),
        ({"layer": 30}, "has 30 blocks, numbered 0 to 29; choose a layer from 1 to 29"),
        ({"layer": -2}, "Layer -2"),
    ],
)
def test_the_papers_tables(tmp_path: Path, given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        reproduce(tmp_path, **given)
    assert not list(tmp_path.iterdir())


def test_a_list_in_another_format(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('{"instruction": "Sing."}')
    with pytest.raises(BadInput, match="holds a dict; expected a JSON list"):
        reproduce(tmp_path, prompts=tmp_path / "list.json")


def test_good_arguments_load_the_subject(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="weights were read"):
        reproduce(tmp_path, layer=4, shots=32)


@pytest.mark.parametrize("given", [{"layer": 0}, {"layer": 30}, {"dtype": "float8"}])
def test_nlas_on_steered_activations(given: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    usual: dict[str, Any] = {
        "av": "reference", "ar": None, "subject": DEFAULT, "layer": None, "suite": "quick", "dtype": "auto",
        "device": "cpu", "estimate": True, "out": Path("nowhere"),
    }  # fmt: skip
    with pytest.raises(typer.Exit):
        reproduce_nla_on_steered.main(**{**usual, **given})
    with pytest.raises(AssertionError, match="weights were read"):
        reproduce_nla_on_steered.main(**usual)


def test_a_subject_that_is_not_there_is_left_to_whoever_loads_it(tmp_path: Path) -> None:
    assert read_config(str(tmp_path)) is None
    assert read_config(DEFAULT).num_hidden_layers == 30


def test_demonstrations_that_do_not_fit_the_context_are_counted_before_anything_runs(tiny: Any) -> None:
    subject: Subject = tiny.__wrapped__("llama")  # one of its own: its configuration is changed
    requests = {"refusal": ["the cat sat on the mat"]}
    subject.model.config.max_position_embeddings = 10_000
    check_context(subject, requests, 32, quick=True)
    subject.model.config.max_position_embeddings = 200
    with pytest.raises(BadInput, match=r"the context of 'tiny-llama' has 200\. Pass --shots \d+, or") as told:
        check_context(subject, requests, 32, quick=True)
    fits = int(str(told.value).split("--shots ")[1].split(",")[0])
    check_context(subject, requests, fits, quick=True)
    with pytest.raises(BadInput, match=f"Pass --shots {fits}"):
        check_context(subject, requests, fits + 1, quick=True)
    subject.model.config.max_position_embeddings = 20
    with pytest.raises(BadInput, match="Leave E3 out"):
        check_context(subject, requests, 1, quick=True)
