"""Facts about memory: it is counted from the config, and a subject that cannot fit is refused before it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.footprint import Footprint, FreeMemory, check_memory, count_parameters, gpus_needed
from nlabench.benchmark.loading import _stored_bits, count_gpus, load_subject
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


#: A model of 10 blocks with 10^8 parameters each, and 10^8 outside them.
PLAIN = Footprint(
    {"embed.weight": 10**8, **{f"blocks.{n}.linear.weight": 10**8 for n in range(10)}}, "blocks",
    frozenset(f"blocks.{n}.linear.weight" for n in range(10)),
)  # fmt: skip


def refuse(dtype: torch.dtype, free: FreeMemory, device: str = "cpu", **options: Any) -> str:
    with pytest.raises(BadInput) as raised:
        check_memory("x", PLAIN, dtype, device, free=free, **options)
    return str(raised.value)


def test_what_fits_is_let_through_and_choices_that_would_fit_are_offered_with_what_they_take() -> None:
    check_memory("x", PLAIN, torch.float32, "cpu", free=FreeMemory(5 * 10**9))
    said = refuse(torch.float32, FreeMemory(4 * 10**9))
    assert "'x' has 1.1 billion parameters, which take 4.8 GB in float32; 4.0 GB are free on 'cpu'" in said
    assert "--dtype bfloat16 (2.4 GB)" in said
    assert "--quantize 4bit" in said
    assert "No choice of these makes it fit here" in refuse(torch.bfloat16, FreeMemory(10**8))


def test_several_gpus_are_offered_where_together_they_hold_it() -> None:
    two = FreeMemory(10**8, (3 * 10**9, 3 * 10**9))
    assert "--device-map auto (4.8 GB)" in refuse(torch.float32, two, "cuda")
    check_memory("x", PLAIN, torch.float32, "cuda", device_map="auto", free=two)
    layout = {"embed": 0, **{f"blocks.{n}": int(n > 1) for n in range(10)}}  # eight blocks on the second
    assert "take 3.5 GB in float32 on 1; 3.0 GB are free there" in refuse(torch.float32, two, "cuda", device_map=layout)


def test_what_is_offered_beside_a_map_fits_where_the_map_lays_it() -> None:
    """Two GPUs hold it together in bfloat16 (2.4 GB), but the map puts all of it on the one with 1 GB."""
    said = refuse(torch.float32, FreeMemory(10**8, (6 * 10**9, 10**9)), "cuda", device_map={"": 1})
    assert "Pass --dtype bfloat16 --quantize 4bit (0.8 GB)." in said


def test_a_checkpoint_in_8_bits_is_counted_as_it_is_stored() -> None:
    eight = PLAIN.bytes(torch.bfloat16, "8bit")
    assert eight == pytest.approx((1e8 * 2 + 1e9) * 1.1)
    for config in ({"load_in_8bit": True}, {"bits": 8, "quant_method": "gptq"}, {"quant_method": "fp8"}):
        assert _stored_bits(SimpleNamespace(quantization_config=config)) == "8bit"
    assert _stored_bits(SimpleNamespace(quantization_config={"bits": 4})) == "4bit"
    assert _stored_bits(LLAMA_70B) is None
    check_memory("x", PLAIN, torch.bfloat16, "cpu", quantize="8bit", free=FreeMemory(14 * 10**8))
    said = refuse(torch.bfloat16, FreeMemory(10**9), quantize="8bit")
    assert "1.3 GB in bfloat16 and 8 bits" in said
    assert "--quantize 4bit" not in said  # it is quantised already


def test_four_bits_are_half_a_byte_a_weight_of_the_blocks_and_no_less() -> None:
    whole, small = (PLAIN.bytes(torch.bfloat16, quantize) for quantize in (None, "4bit"))
    assert whole == pytest.approx(11e8 * 2 * 1.1)
    assert small == pytest.approx((1e8 * 2 + 1e9 * 0.516) * 1.1, rel=1e-3)
    assert len(PLAIN.pieces(torch.bfloat16)) == 11


@pytest.mark.parametrize(("memory", "gpus"), [(20, 1), (10, 2), (7, 3), (4, 5), (3, None)])
def test_gpus_are_counted_piece_by_piece(memory: int, gpus: int | None) -> None:
    assert gpus_needed([4, 3, 3, 2, 4], memory) == gpus


def test_a_split_subject_takes_as_many_gpus_as_its_weights_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LLAMA_70B.save_pretrained(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # of a machine with GPUs, as far as counting goes
    spec, memory = str(tmp_path), 80 * 10**9
    assert count_gpus(spec, dtype="bfloat16", memory=memory) == 1  # not split
    assert count_gpus(spec, dtype="bfloat16", device_map="auto", memory=memory) == 3  # 155 GB, 72 of each GPU's 80
    assert count_gpus(spec, dtype="bfloat16", device_map="auto", memory=141 * 10**9) == 2
    assert count_gpus(spec, dtype="bfloat16", device="cpu", memory=memory) == 0
    with pytest.raises(BadInput, match="no number of them holds it"):
        count_gpus(spec, dtype="float32", device_map="auto", memory=10**9)


def test_a_subject_too_large_is_refused_before_a_weight_is_read(tmp_path: Path) -> None:
    LLAMA_70B.save_pretrained(tmp_path)  # a folder without weights: to read one would be another error
    with pytest.raises(BadInput, match=r"70.6 billion parameters, which take 310.4 GB in float32.*Nothing was loaded"):
        load_subject(str(tmp_path), device="cpu")
