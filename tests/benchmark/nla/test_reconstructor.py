"""Facts about an AR: which state its vector is made from, and that neither padding nor a cache shows in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from nlabench.benchmark.activations import Site
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.nla.checkpoint import VALUE_HEAD, Checkpoint
from nlabench.benchmark.nla.reconstructor import NLAReconstructor, load_reconstructor
from nlabench.benchmark.nla.sidecar import Sidecar, explanation_ids, read_sidecar
from nlabench.benchmark.subject import Prefix, Subject

TEXTS = [
    "the cat sat",
    "",
    "the rain fell slowly in the night and the cat sat late at home with the mat",
    "mat",
    "night",
]

Write = Callable[..., Path]
Tiny = Callable[[str], Subject]


def load(folder: Path) -> NLAReconstructor:
    return load_reconstructor(Checkpoint(folder / "ar", read_sidecar(folder / "ar")))


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma2", "gemma3-text", "gemma3"])
def test_a_vector_is_the_value_head_on_the_stream_after_block_k_at_the_last_token(
    write_nla: Write, tiny: Tiny, tmp_path: Path, family: str
) -> None:
    found = load(write_nla(family, tmp_path))
    site = Site(f"tiny-{family}", 1, 32)
    together = found.reconstruct(TEXTS, site)
    assert (together.dtype, together.shape) == (torch.float32, (5, 32))
    assert torch.pdist(together).min() > 1
    head = safetensors.torch.load_file(tmp_path / "ar" / VALUE_HEAD)["weight"]
    # The AR's blocks are the first of this model, run here by transformers alone: site K is hidden_states[K + 1].
    whole = tiny(family).model
    for text, vector in zip(TEXTS, together, strict=True):
        ids = torch.tensor([explanation_ids(found.sidecar, found.model.tokenizer, text)])
        with torch.inference_mode():
            states = whole(input_ids=ids, output_hidden_states=True).hidden_states[2][0, -1]
        torch.testing.assert_close(vector, head @ states, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_vector_is_the_same_in_any_batch(write_nla: Write, tmp_path: Path, family: str) -> None:
    found = load(write_nla(family, tmp_path))
    site = Site(f"tiny-{family}", 1, 32)
    together = found.reconstruct(TEXTS, site)
    alone = torch.cat([found.reconstruct([text], site) for text in TEXTS])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    again = found.reconstruct([*reversed(TEXTS), *TEXTS], site)
    torch.testing.assert_close(again, torch.cat([together.flip(0), together]), rtol=1e-5, atol=1e-5)
    assert found.reconstruct([], site).shape == (0, 32)


def test_the_beginning_that_all_prompts_share_runs_once(write_nla: Write, tmp_path: Path) -> None:
    found = load(write_nla("llama", tmp_path))
    tokens = found.model.tokenizer.convert_ids_to_tokens(found.prefix.ids)
    assert tokens[:3] == ["<s>", "of", "the"]
    assert tokens[-1] == "<text>"
    lengths = []
    handle = found.model.blocks[0].register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    found.reconstruct(["the cat sat"], Site("tiny-llama", 1, 32))
    handle.remove()
    assert lengths == [5]  # three words, </text>, <summary>


def test_a_text_that_merges_with_the_prompt_is_read_whole(subject: Subject) -> None:
    template = "Summary of the following text: <text>{explanation}</text> <summary>"
    sidecar = Sidecar(
        role="ar", d_model=576, extraction_layer_index=2, prompt_templates={"ar": template}
    )  # fmt: skip
    ids = [explanation_ids(sidecar, subject.tokenizer, text) for text in ("rain", "> quoted")]
    prefix = ids[0][:9]
    assert ids[1][:9] != prefix  # ">>" is one token
    site = Site(subject.name, 2, 576)
    cached = NLAReconstructor(sidecar, subject, torch.eye(576), subject.make_prefix(prefix, 2))
    whole = NLAReconstructor(sidecar, subject, torch.eye(576), Prefix((), (), ()))
    texts = ["> quoted", "rain", "> and more"]
    torch.testing.assert_close(cached.reconstruct(texts, site), whole.reconstruct(texts, site), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("site", [Site("tiny-llama", 2, 32), Site("tiny-llama", 1, 64)])
def test_another_site_is_refused(write_nla: Write, tmp_path: Path, site: Site) -> None:
    found = load(write_nla("llama", tmp_path))
    with pytest.raises(BadInput, match=r"made for block 1 \(d_model 32\)"):
        found.reconstruct(["text"], site)


def test_an_ar_without_a_usable_value_head_is_refused(write_nla: Write, tmp_path: Path) -> None:
    folder = write_nla("llama", tmp_path)
    file = folder / "ar" / VALUE_HEAD
    for tensors, said in (
        ({"weight": torch.zeros(32, 16)}, r"is \[32, 16\]; expected finite \[32, 32\]"),
        ({"weight": torch.full((32, 32), torch.nan)}, "with NaN"),
        ({"bias": torch.zeros(32)}, "no usable value_head"),
    ):
        safetensors.torch.save_file(tensors, file)
        with pytest.raises(BadInput, match=said):
            load(folder)
    file.unlink()
    with pytest.raises(BadInput, match="no usable value_head"):
        load(folder)
