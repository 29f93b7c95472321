"""Writing an NLA as full directories of the released contract, whatever it was loaded from.

`av/` is a causal language model, `ar/` its first K + 1 blocks and a value head; each has its tokenizer and sidecar.
Of a model that sees images as well, the part that reads text is written: nothing else of it is used.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..errors import BadInput
from ..store import write_atomically
from ..subject import Subject, find_blocks
from .checkpoint import VALUE_HEAD, Checkpoint, find_autoencoder, load_half
from .portable import write_portable
from .reconstructor import load_reconstructor
from .sidecar import Sidecar, explanation_ids, mark_prompt, write_sidecar

#: What may lie beside the weights and goes along: model cards and licences.
_PAPERS = ("README*", "LICENSE*", "LICENCE*", "NOTICE*")


def export_checkpoint(
    spec: str, out: Path, *, dtype: str = "auto", say: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Write `out/av`, and `out/ar` where there is an AR. Returns the folders.

    spec: as for the `nla` verbalizer. dtype: of the weights; "auto" is float32, in which an adapter merges exactly.

    Raises:
        BadInput: no such NLA, a folder that is there already, or a tokenizer that does not survive being written.
    """
    found = find_autoencoder(spec.removeprefix("nla:"))
    halves = [("av", found.av), *([("ar", found.ar)] if found.ar else [])]
    for name, _ in halves:
        if (out / name).exists():
            raise BadInput(f"{out / name} exists, and nothing is written over. Give another --out, or remove it first.")
    out.mkdir(parents=True, exist_ok=True)
    for name, checkpoint in halves:
        with tempfile.TemporaryDirectory(dir=out, prefix=f".{name}-") as scratch:
            whole = Path(scratch) / name
            whole.mkdir()
            (_write_av if name == "av" else _write_ar)(checkpoint, whole, dtype, say)
            for paper in (p for pattern in _PAPERS for p in checkpoint.folder.glob(pattern)):
                shutil.copy(paper, whole / paper.name)
            whole.rename(out / name)
        say(f"{out / name}: written")
    return [out / name for name, _ in halves]


def _write_av(checkpoint: Checkpoint, folder: Path, dtype: str, say: Callable[[str], None]) -> None:
    sidecar = checkpoint.sidecar
    injection = sidecar.vector_injection()
    if injection.mode != "replace_embedding":
        say(f"note: vectors enter this AV by {injection.mode}, which clients of the released NLAs do not know")
    model = load_half(checkpoint, device="cpu", dtype=dtype, say=say)
    shell, weights = _text_part(model, with_head=True)
    write_portable(shell, model.tokenizer, folder, weights=weights)
    write_sidecar(_with_numbers(sidecar), folder)
    before = mark_prompt(sidecar, model.tokenizer)
    _check_same(before, mark_prompt(sidecar, AutoTokenizer.from_pretrained(folder)), checkpoint)


def _write_ar(checkpoint: Checkpoint, folder: Path, dtype: str, say: Callable[[str], None]) -> None:
    sidecar = checkpoint.sidecar
    reconstructor = load_reconstructor(checkpoint, device="cpu", dtype=dtype, say=say)
    model, tokenizer = reconstructor.model, reconstructor.model.tokenizer
    # The released reader of an AR takes a BOS that is named for one that is written, and refuses the tokenizer.
    bos = tokenizer.bos_token_id
    unwritten = bos is not None and tokenizer.encode("x", add_special_tokens=True)[0] != bos
    shell, weights = _text_part(model, with_head=False)
    write_portable(shell, tokenizer, folder, weights=weights, without_bos=unwritten)
    head = reconstructor.value_head.to(model.dtype).contiguous()
    write_atomically(folder / VALUE_HEAD, safetensors.torch.save({"weight": head}))
    write_sidecar(_with_numbers(sidecar), folder)
    text = "A sentence, to compare."
    before = explanation_ids(sidecar, tokenizer, text)
    _check_same(before, explanation_ids(sidecar, AutoTokenizer.from_pretrained(folder), text), checkpoint)


def _text_part(model: Subject, *, with_head: bool) -> tuple[Any, dict[str, Tensor]]:
    """A causal language model without memory of its own (for its configuration), and its weights by their names.

    with_head: with the unembedding, where it is not the embedding table itself.
    """
    config = model.model.config.get_text_config()
    head, table = model.model.get_output_embeddings(), model.model.get_input_embeddings()
    # Whether the two are one tensor: a configuration with an image part says it in two places.
    config.tie_word_embeddings = tied = head is not None and head.weight is table.weight
    with torch.device("meta"):
        shell = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    shell.generation_config = model.model.generation_config
    names = {module: name for name, module in shell.named_modules()}
    weights = {f"{names[find_blocks(shell)[0]]}.{name}": weight for name, weight in model.backbone.state_dict().items()}
    expected = set(shell.state_dict())
    unembedding = {name for name in expected if name.startswith(f"{names[shell.get_output_embeddings()]}.")}
    if with_head and not tied:
        weights |= {name: getattr(head, name.rpartition(".")[2]) for name in unembedding}
    if set(weights) | unembedding != expected:
        odd = min((set(weights) | unembedding) ^ expected)
        raise BadInput(
            f"The text part of {type(model.model).__name__} cannot be written by itself: the weight {odd!r} belongs to "
            "one of the two only. Write directories of families whose text part is a model of its own (Llama, Qwen, "
            "Mistral and Gemma are)."
        )
    return shell, weights


def _with_numbers(sidecar: Sidecar) -> Sidecar:
    """The sidecar with numbers for `sqrt_d_model`, which not every reader knows."""
    length = {"sqrt_d_model": float(sidecar.d_model) ** 0.5}
    extraction = sidecar.extraction
    scales = {
        "injection_scale": length.get(str(extraction.injection_scale), extraction.injection_scale),
        "mse_scale": length.get(str(extraction.mse_scale), extraction.mse_scale),
    }
    return sidecar.model_copy(update={"extraction": extraction.model_copy(update=scales)})


def _check_same(before: Any, after: Any, checkpoint: Checkpoint) -> None:
    if before != after:
        raise BadInput(
            f"The tokenizer of {checkpoint.folder} reads its own prompt as other tokens once it is written: {after} in "
            f"place of {before}. Its class does something that tokenizer.json does not say; copy the checkpoint's own "
            "files in place of an export."
        )
