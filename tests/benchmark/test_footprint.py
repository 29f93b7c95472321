"""Facts about memory: it is counted from the config, and a subject that cannot fit is refused before it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.footprint import check_memory, count_parameters
from nlabench.benchmark.loading import load_subject
from nlabench.benchmark.subject import Subject
from transformers import LlamaConfig

LLAMA_70B = LlamaConfig(
    hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
    vocab_size=128256,
)  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "gemma3-text", "gpt2"])
def test_parameters_are_counted_as_they_are_loaded(tiny: Callable[[str], Subject], family: str) -> None:
    model = tiny(family).model
    assert count_parameters(model.config) == sum(p.numel() for p in model.parameters())


def test_seventy_billion_parameters_are_counted_without_memory_for_them() -> None:
    assert count_parameters(LLAMA_70B) == pytest.approx(70.55e9, rel=1e-3)


def test_a_narrower_dtype_is_offered_where_it_fits() -> None:
    check_memory("x", 10**9, torch.float32, "cpu", free=5 * 10**9)
    with pytest.raises(BadInput, match=r"'x' has 1.0 billion .* 4.4 GB in float32; 4.0 GB .*--dtype bfloat16 \(2.2 GB"):
        check_memory("x", 10**9, torch.float32, "cpu", free=4 * 10**9)
    with pytest.raises(BadInput, match=r"No dtype makes it fit \(22.0 GB in bfloat16\).*4 bits \(about 5.5 GB\)"):
        check_memory("x", 10**10, torch.bfloat16, "cpu", free=10**10)


def test_a_subject_too_large_is_refused_before_a_weight_is_read(tmp_path: Path) -> None:
    LLAMA_70B.save_pretrained(tmp_path)  # a folder without weights: to read one would be another error
    with pytest.raises(BadInput, match=r"70.6 billion parameters, which take 310.4 GB in float32.*Nothing was loaded"):
        load_subject(str(tmp_path), device="cpu")
