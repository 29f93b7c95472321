"""What docs/bring-your-own.md quotes from messages stands in those messages: each is provoked, and no quote is left."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import safetensors.torch
import torch
from nlabench.benchmark.activations import Site
from nlabench.benchmark.engine import LocalEngine
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.extraction import Activations
from nlabench.benchmark.nla.checkpoint import load_adapter
from nlabench.benchmark.nla.sidecar import Sidecar, mark_prompt, read_sidecar
from nlabench.benchmark.posting import Patience, post_all
from nlabench.benchmark.store import Store
from nlabench.benchmark.verbalizers.base import VerbalizerCard, check_made_for, check_texts, wrap_function
from nlabench.benchmark.verbalizers.from_file import read_texts
from nlabench.benchmark.verbalizers.http import read_spec
from nlabench.benchmark.verbalizers.registry import find_verbalizer, load_verbalizer
from nlabench.benchmark.verbalizing import verbalize_items

PAGE = Path(__file__).parents[2].joinpath("docs", "bring-your-own.md").read_text(encoding="utf-8")
SITE = Site("subject", 1, 32)


def quotes() -> list[str]:
    """The first column of the page's last table, as patterns: `…` is anything, and a number is any number."""
    rows = re.findall(r"^\| `(.+?)` \|", PAGE.partition("## When something is wrong")[2], re.MULTILINE)
    return [re.sub(r"\d+", r"\\d+", re.escape(row).replace("…", ".*")) for row in rows]


def a_name_that_is_not_in_the_module(_: Path) -> None:
    find_verbalizer("json:descrbe")


def one_text_for_all_vectors(_: Path) -> None:
    check_texts("mine", ["a text"], 96)


def another_site(_: Path) -> None:
    check_made_for(VerbalizerCard(name="mine", subject="other", layer=19, d_model=576), SITE)


def a_function_that_always_raises(folder: Path) -> None:
    def broken(vectors: list[torch.Tensor]) -> list[str]:
        raise RuntimeError("no weights")

    activations = Activations(torch.ones(2, 32), pd.DataFrame(index=range(2)))
    study: Any = SimpleNamespace(site=SITE)
    verbalize_items(wrap_function(broken), activations, study, LocalEngine(Store(folder)))


def a_folder_without_a_sidecar(folder: Path) -> None:
    read_sidecar(folder)


def an_av_without_a_scale(_: Path) -> None:
    Sidecar(role="av", d_model=32).vector_injection()


def a_name_of_ours(_: Path) -> None:
    mine = SimpleNamespace(card=VerbalizerCard(name="constant"), verbalize=lambda batch: [""] * len(batch))
    study: Any = SimpleNamespace(site=SITE)
    load_verbalizer(mine, study)


def a_route_without_its_checkpoint(_: Path) -> None:
    read_spec("//127.0.0.1:30000/generate")


def a_line_too_few(folder: Path) -> None:
    file = folder / "verbalizations.jsonl"
    file.write_text(json.dumps({"item_id": "a", "text": "the sea"}))
    read_texts(file, {"a": "one vector", "b": "another"}, VerbalizerCard(name="theirs"))


def a_server_that_is_not_there(_: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    (answer,) = post_all(f"http://127.0.0.1:{port}/describe", 1, lambda _: b"{}", Patience(attempts=1), {})
    raise BadInput(answer.error)


PLAIN = [
    a_name_that_is_not_in_the_module, one_text_for_all_vectors, another_site, a_function_that_always_raises,
    a_folder_without_a_sidecar, an_av_without_a_scale, a_name_of_ours, a_route_without_its_checkpoint, a_line_too_few,
    a_server_that_is_not_there,
]  # fmt: skip


def test_every_quoted_message_is_one_that_is_given(tmp_path: Path, write_nla: Callable[..., Path]) -> None:
    checkpoint = write_nla("llama", tmp_path, adapters=True)

    def another_template(_: Path) -> None:
        sidecar = read_sidecar(checkpoint / "av")
        moved = sidecar.tokens.model_copy(update={"injection_left_neighbor_id": 3})
        nla = load_adapter(checkpoint / "av", device="cpu")
        mark_prompt(sidecar.model_copy(update={"tokens": moved}), nla.tokenizer)

    def an_adapter_of_another_base(_: Path) -> None:
        file = checkpoint / "av" / "adapter_model.safetensors"
        weights = safetensors.torch.load_file(file)
        safetensors.torch.save_file({f"{name}.other": weight for name, weight in weights.items()}, file)
        load_adapter(checkpoint / "av", device="cpu")

    messages = {}
    for provoke in (*PLAIN, another_template, an_adapter_of_another_base):
        with pytest.raises(BadInput) as caught:
            provoke(tmp_path)
        messages[provoke.__name__] = " ".join(str(caught.value).split())
    patterns = quotes()
    assert len(patterns) == len(messages)
    for pattern in patterns:
        assert any(re.search(pattern, message) for message in messages.values()), pattern
    for name, message in messages.items():
        assert any(re.search(pattern, message) for pattern in patterns), f"{name}: {message}"
