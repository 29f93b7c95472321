"""What docs/bring-your-own.md says is so: its commands are run as they stand, on the default subject.

`small.toml`, made smaller here, is far too small for figures, so the facts are of another kind: that a result is there
and whose it is, that the floor is where it must be, and that the same texts score the same whatever road they came by.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import peft
import pytest
import torch
import yaml
from nlabench.benchmark.activations import ActivationBatch, Site
from nlabench.benchmark.exchange import read_export
from nlabench.benchmark.injection import VectorInjection
from nlabench.benchmark.loading import load_subject
from nlabench.benchmark.nla.sidecar import Sidecar
from nlabench.benchmark.records import Result
from nlabench.benchmark.task import ENTRY_POINTS, MeasuringTask
from nlabench.benchmark.verbalizers.base import Reconstructor
from nlabench.benchmark.verbalizers.http import Options
from nlabench.benchmark.verbalizers.nla import Decoding, load_nla
from nlabench.benchmark.verbalizers.registry import known_verbalizers
from nlabench.tasks.concept_identification import TASK as CONCEPT_IDENTIFICATION
from nlabench.tasks.content_retention import TASK as CONTENT_RETENTION

from .conftest import EXAMPLES, PAGE, README, ROOT, Bench, check_links, find_block, find_blocks

LIST = (ROOT / "docs" / "verbalizers.md").read_text(encoding="utf-8")


def scores(result: Result, verbalizer: str) -> dict[tuple[Any, ...], float | None]:
    """Every figure that is a verbalizer's own."""
    return {
        (row.task, row.metric, row.scorer, row.arm, row.injection, row.level, row.kind, row.r, row.group): row.value
        for row in result.select(verbalizer=verbalizer, versus=None)
    }


def identified(result: Result, verbalizer: str) -> float:
    """The AUROC at natural function words, by the scorer of the headline."""
    row = result.one(
        task="concept_identification", metric="auroc", verbalizer=verbalizer, scorer=result.headline_scorer,
        arm="natural", kind="function", group=None,
    )  # fmt: skip
    assert row is not None
    assert row.value is not None
    return row.value


def load_example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where a dataclass looks for the names of its fields' types
    spec.loader.exec_module(module)
    return module


# -- the pages, without a run ---------------------------------------------------------------------------------------


def test_code_on_the_page_is_the_code_of_the_example() -> None:
    shown = dict(re.findall(r"^```python file=(\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    assert shown
    for name, code in shown.items():
        assert code == (EXAMPLES / name).read_text(encoding="utf-8"), name


def test_every_example_is_linked_and_every_link_leads_somewhere() -> None:
    for name in ("bring-your-own.md", "verbalizers.md"):
        check_links(ROOT / "docs" / name)
    for example in EXAMPLES.glob("*.*"):
        assert example.name in PAGE


def test_what_runs_in_another_environment_imports_nothing_of_ours() -> None:
    allowed = {"my_script.py": {"pyarrow"}, "my_server.py": set(), "my_sidecar.py": {"yaml", "transformers"}}
    for name, packages in allowed.items():
        tree = ast.parse((EXAMPLES / name).read_text(encoding="utf-8"))
        named = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
        named |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {module.partition(".")[0] for module in named} - set(sys.stdlib_module_names) == packages, name


def test_the_list_of_verbalizers_has_every_family_and_every_option() -> None:
    for name in known_verbalizers():
        assert f"`{name}" in LIST, name
    for option in (*Decoding.model_fields, *Options.model_fields):
        assert f"`{option}=" in LIST, option


def test_what_tasks_ask_stands_on_both_pages() -> None:
    for page in (PAGE, LIST):
        for task in (CONCEPT_IDENTIFICATION, CONTENT_RETENTION):
            assert f"*{task.asks}*" in " ".join(page.split())


def test_injections_on_the_page_are_understood() -> None:
    found = []
    for block in find_blocks("yaml injection"):
        sidecar = {"role": "av", "d_model": 576, "extraction_layer_index": 19, **yaml.safe_load(block)}
        found.append(Sidecar.model_validate(sidecar).vector_injection())
    assert found == [
        VectorInjection("add_norm_matched", block=1, coefficient=1.0),
        VectorInjection("overwrite_hidden", block=6, scale="state"),
    ]


# -- the page's commands --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def function_result(bench: Bench) -> Result:
    bench.follow("bash run=function")
    return bench.result("function")


@pytest.fixture(scope="module")
def checkpoint_result(bench: Bench) -> Result:
    def shorten_texts() -> None:
        sidecar = bench.folder / "runs" / "my-nla" / "av" / "nla_meta.yaml"
        whole = sidecar.read_text(encoding="utf-8")
        assert "max_new_tokens: 64\n" in whole
        sidecar.write_text(whole.replace("max_new_tokens: 64\n", "max_new_tokens: 16\n"), encoding="utf-8")

    bench.follow_here("bash run=checkpoint", shorten_texts)
    return bench.result("checkpoint")


@pytest.fixture(scope="module")
def exported(bench: Bench) -> Path:
    bench.follow("bash run=files")
    return bench.folder / "runs" / "elsewhere" / "export" / "activations.parquet"


SUBJECT = "smollm2-135m-instruct-q4_1"
NLA = "nla:my-nla"


@pytest.mark.slow
class TestFunction:
    def test_it_is_scored_beside_its_floors_the_ceiling_and_a_reader(self, function_result: Result) -> None:
        assert set(function_result.verbalizers) == {
            "constant", "probe-ceiling", "last-token", "describe", "average-direction:describe",
            "permuted-texts:describe",
        }  # fmt: skip
        record = function_result.verbalizers["describe"]
        assert record.n_failed == 0
        assert record.rerun_agreed == record.rerun_checked

    def test_a_text_that_never_changes_is_at_chance_and_a_probe_above(self, function_result: Result) -> None:
        assert identified(function_result, "constant") == 0.5
        assert identified(function_result, "average-direction:describe") == 0.5
        assert 0 <= identified(function_result, "describe") <= 1
        assert identified(function_result, "probe-ceiling") > 0.5

    def test_the_ten_lines_of_the_readme_run(self, bench: Bench) -> None:
        code = next(block for block in find_blocks("python", README) if block.startswith("# mine.py\n"))
        (bench.folder / "mine.py").write_text(code)
        (command,) = re.findall(r"^nlabench run --verbalizer mine:describe.*$", README, re.MULTILINE)
        bench.run_here(f"{command} --suite small.toml")
        assert 0 <= identified(bench.result("mine"), "describe") <= 1


@pytest.mark.slow
class TestClass:
    def test_the_card_stands_in_the_result(self, bench: Bench) -> None:
        bench.follow_here("bash run=class")
        result = bench.result("class")
        card = result.verbalizers["word-lens"].card
        assert (card["licence"], card["layer"], card["settings"]["words"]) == ("Apache-2.0", 19, 8)
        assert 0 <= identified(result, "word-lens") <= 1
        record = result.verbalizers["word-lens"]
        assert record.rerun_agreed == record.rerun_checked > 0

    def test_its_way_back_ends_nearer_to_the_own_vector_than_to_others(self, exported: Path) -> None:
        lens = load_example("my_class").WordLens()
        assert isinstance(lens, Reconstructor)
        _, batch = read_export(exported)
        texts = [found.text for found in lens.verbalize(batch)]
        vectors = lens.reconstruct(texts, batch.site)
        assert (vectors.shape, vectors.dtype) == (batch.vectors.shape, torch.float32)
        centred = torch.nn.functional.normalize(batch.vectors - batch.vectors.mean(0), dim=-1)
        cosines = torch.nn.functional.normalize(vectors, dim=-1) @ centred.T
        assert cosines.diagonal().mean() > cosines.mean() + 0.02


@pytest.mark.slow
class TestCheckpoint:
    def test_a_folder_in_the_contract_is_scored(self, checkpoint_result: Result) -> None:
        record = checkpoint_result.verbalizers[NLA]
        assert (record.card["subject"], record.card["layer"]) == (SUBJECT, 19)
        assert record.n_failed == 0
        assert 0 <= identified(checkpoint_result, NLA) <= 1

    def test_served_it_writes_what_it_writes_in_process(self, bench: Bench, checkpoint_result: Result) -> None:
        with bench.serving("bash run=serve"):
            bench.follow_here("bash run=served")
        (name,) = [n for n in bench.result("served").verbalizers if n.startswith("http:")]
        served, own = bench.texts("served", name), bench.texts("checkpoint", NLA)
        assert served.keys() == own.keys()
        assert sum(served[item] == own[item] for item in own) >= 0.95 * len(own)  # sums are split otherwise in a batch


@pytest.fixture
def adapter(bench: Bench) -> Path:
    """A random adapter over the default subject, as a training run leaves it: no sidecar, the tokenizer beside it."""
    folder = bench.folder / "runs" / "my-adapter"
    subject = load_subject(SUBJECT)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(subject.model, config)
    config.base_model_name_or_path = SUBJECT
    adapted.save_pretrained(folder, save_embedding_layers=False)
    subject.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_an_adapter_with_the_sidecar_of_the_example_loads_whichever_way_its_vectors_enter(
    bench: Bench, adapter: Path
) -> None:
    bench.follow("bash run=sidecar")
    sidecar = (adapter / "nla_meta.yaml").read_text(encoding="utf-8")
    written = []
    for injection in ("", *find_blocks("yaml injection")):
        (adapter / "nla_meta.yaml").write_text(sidecar + injection, encoding="utf-8")
        nla = load_nla(f"{adapter}?new_tokens=4")
        vectors = torch.randn(2, 576, generator=torch.Generator().manual_seed(1)) * 9
        found = nla.verbalize(ActivationBatch(vectors, Site(SUBJECT, 19, 576)))
        written.append(tuple(text.logprob for text in found))
    assert all(logprob is not None for row in written for logprob in row)
    assert len(set(written)) == 3  # they do enter, each in its own way


@pytest.mark.slow
def test_a_server_of_ones_own_gets_the_scores_of_the_function(bench: Bench, function_result: Result) -> None:
    with bench.serving("bash run=describe-server"):
        bench.follow_here("bash run=described")
    result = bench.result("described")
    (name,) = [n for n in result.verbalizers if n.startswith("http:")]
    assert result.verbalizers[name].n_failed == 0
    assert scores(result, name) == pytest.approx(scores(function_result, "describe"), abs=2e-5)


@pytest.mark.slow
def test_texts_by_way_of_files_get_the_scores_of_the_function(
    bench: Bench, exported: Path, function_result: Result
) -> None:
    assert set(pd.read_parquet(exported).columns) == {"item_id", "activation_vector", "subject", "layer", "d_model"}
    result = bench.result("elsewhere/scored/elsewhere")
    assert result.verbalizers["elsewhere"].n_failed == 0
    assert scores(result, "elsewhere") == pytest.approx(scores(function_result, "describe"), abs=2e-5)


@pytest.mark.slow
def test_who_answers_questions_is_asked_each_tasks_own(bench: Bench) -> None:
    bench.follow_here("bash run=answers")
    record = bench.result("answers").verbalizers["word-answers"]
    tasks = (CONCEPT_IDENTIFICATION, CONTENT_RETENTION)
    assert record.questions == {task.name: task.asks for task in tasks}
    items = bench.items("answers", "word-answers").query("text != ''")  # empty where the question was not asked
    words = items["text"].str.split(", ").map(len).groupby(items["question"]).unique()
    assert {question: list(counts) for question, counts in words.items()} == {tasks[0].asks: [8], tasks[1].asks: [3]}


@pytest.mark.slow
def test_a_task_of_ones_own_is_found_by_its_entry_point_and_scored(bench: Bench) -> None:
    (groups,) = tomllib.loads(find_block("toml pyproject"))["project"].values()
    ((name, where),) = groups[ENTRY_POINTS].items()
    task = load_example("my_task").TASK
    assert isinstance(task, MeasuringTask)
    assert name == task.name
    installed = bench.folder / "my_task-1.dist-info"  # what installing the package leaves
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-task\nVersion: 1\n", encoding="utf-8")
    (installed / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{name} = {where}\n", encoding="utf-8")
    there = replace(bench, environment={**bench.environment, "PYTHONPATH": str(bench.folder)})
    there.follow("bash run=task")
    result = bench.result("my-task")
    assert result.provenance.tasks[name] == task.version
    assert f"{name}.words" in bench.items("my-task", "describe")
    rows = result.select(task=name, verbalizer="describe")
    assert {(row.arm, row.r) for row in rows} == {(arm, r) for arm in ("steered", "permuted") for r in (0.5, 2.0)}
    assert {row.value for row in rows} == {0.0}  # it says three coordinates of everything
