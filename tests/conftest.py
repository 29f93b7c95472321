"""What the tests share: the default subject, and a small random model of every family that the package promises."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import safetensors.torch
import torch
import transformers as hf
import yaml
from nlabench.benchmark.subject import Subject, find_blocks, load_subject, wrap_subject
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

# Unless told to sleep (scripts/environment.sh does), torch's threads wait for each other by spinning: with anything
# else on the same cores a test of a tenth of a second takes ten.
if os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
    torch.set_num_threads(1)
# And a deadline of hypothesis measures the machine's other work, not ours.
hypothesis.settings.register_profile("shared-cores", deadline=None)
hypothesis.settings.load_profile("shared-cores")

N_BLOCKS, D_MODEL, VOCABULARY, WINDOW = 4, 32, 61, 5

_GROUPED = {
    "vocab_size": VOCABULARY, "hidden_size": D_MODEL, "intermediate_size": 48, "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_MIXED = {
    "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
}  # fmt: skip


def _llama() -> hf.PreTrainedModel:
    return hf.LlamaForCausalLM(hf.LlamaConfig(**_GROUPED))


def _qwen2() -> hf.PreTrainedModel:
    return hf.Qwen2ForCausalLM(hf.Qwen2Config(**_GROUPED))


def _qwen3() -> hf.PreTrainedModel:
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**_GROUPED, head_dim=8))


def _mistral() -> hf.PreTrainedModel:
    return hf.MistralForCausalLM(hf.MistralConfig(**_GROUPED, head_dim=8, sliding_window=WINDOW))


def _gemma2() -> hf.PreTrainedModel:
    return hf.Gemma2ForCausalLM(hf.Gemma2Config(**_GROUPED, **_MIXED))


def _gemma3_text() -> hf.PreTrainedModel:
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**_GROUPED, **_MIXED))


def _gemma3() -> hf.PreTrainedModel:
    # The vision tower is as deep as the text model on purpose: its list of blocks must not be taken for the subject's.
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": N_BLOCKS, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = hf.Gemma3Config(
        text_config={**_GROUPED, **_MIXED}, vision_config=vision, tie_word_embeddings=False, mm_tokens_per_image=4,
        image_token_index=VOCABULARY - 1, boi_token_index=VOCABULARY - 2, eoi_token_index=VOCABULARY - 3,
    )  # fmt: skip
    return hf.Gemma3ForConditionalGeneration(config)


def _gpt2() -> hf.PreTrainedModel:
    config = hf.GPT2Config(
        vocab_size=VOCABULARY, n_embd=D_MODEL, n_layer=N_BLOCKS, n_head=4, n_positions=128, tie_word_embeddings=False,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return hf.GPT2LMHeadModel(config)


def _gpt_neox() -> hf.PreTrainedModel:
    plain = {name: value for name, value in _GROUPED.items() if name != "num_key_value_heads"}
    return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**plain))


_FAMILIES: dict[str, Callable[[], hf.PreTrainedModel]] = {
    "llama": _llama, "qwen2": _qwen2, "qwen3": _qwen3, "mistral": _mistral, "gemma2": _gemma2,
    "gemma3-text": _gemma3_text, "gemma3": _gemma3, "gpt2": _gpt2, "gpt-neox": _gpt_neox,
}  # fmt: skip


def _draw_weights(model: hf.PreTrainedModel) -> hf.PreTrainedModel:
    """Weights large enough that attention is sharp: an error in a mask or a position then shows in the first digit."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:  # norms and biases
                parameter += 0.1 * noise
            else:
                parameter.copy_(noise * 1.5 / parameter.shape[-1] ** 0.5)
    return model


_WORDS = ["the", "and", "of", "in", "with", "cat", "sat", "mat", "rain", "fell", "slowly", "night", "home", "late"]


def _word_tokenizer(*, ends: bool = False) -> hf.PreTrainedTokenizerFast:
    """Words as SentencePiece marks them (▁), after a BOS as Llama and Gemma have it; `ends`: with an EOS too."""
    vocabulary = ["<unk>", "<s>", "</s>", *(f"▁{word}" for word in _WORDS)]
    vocabulary += [f"t{i}" for i in range(VOCABULARY - len(vocabulary))]
    raw = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if ends else "<s> $A", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )


@functools.cache
def _tiny(family: str) -> Subject:
    return wrap_subject(_draw_weights(_FAMILIES[family]()), _word_tokenizer(), f"tiny-{family}", f"tiny:{family}")


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], Subject]:
    """A small random subject by the name of its family; one per session, so a test that changes one copies it."""
    return _tiny


@pytest.fixture(scope="session", params=list(_FAMILIES))
def any_tiny(request: pytest.FixtureRequest) -> Subject:
    """A small random subject of each family in turn."""
    return _tiny(request.param)


@pytest.fixture(scope="session")
def word_tokenizer() -> Callable[..., hf.PreTrainedTokenizerFast]:
    return _word_tokenizer


@pytest.fixture(scope="session")
def subject() -> Subject:
    """The default subject, from the cache (fetched once)."""
    return load_subject()


# -- a checkpoint in the released NLA contract ----------------------------------------------------------------------

NLA_BLOCK = 1  # K: the AR has K + 1 blocks
NLA_SCALE = 20.0
MARKER = "㈎"
_TAGS = [
    "<|user|>", "<|assistant|>", "<concept>", "</concept>", MARKER, "<text>", "</text>", "<summary>", "<explanation>",
    "</explanation>",
]  # fmt: skip


def _nla_tokenizer() -> hf.PreTrainedTokenizerFast:
    """The word tokenizer with the contract's tags and marker as tokens of their own, and a chat template with a BOS."""
    tokenizer = _word_tokenizer()
    filler = tokenizer.convert_ids_to_tokens(range(VOCABULARY - len(_TAGS) - 5, VOCABULARY - 5))  # Gemma has the last 3
    raw = tokenizer.backend_tokenizer.to_str()
    for token, tag in zip([*filler, *(f"▁{word}" for word in _WORDS)], [*_TAGS, *_WORDS], strict=True):
        raw = raw.replace(f'"{token}"', f'"{tag}"')
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(raw), unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        pad_token="<unk>",
        chat_template="{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    )  # fmt: skip
    # As added tokens they stay what they are in a Qwen directory, which transformers gives Qwen's own pre-tokenizer.
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in _TAGS])
    tokenizer.add_tokens([AddedToken(word, single_word=True, lstrip=True, normalized=False) for word in _WORDS])
    return tokenizer


def _nla_sidecar(family: str, role: str) -> dict[str, Any]:
    tokens = _nla_tokenizer()
    marker, left, right = tokens.convert_tokens_to_ids([MARKER, "<concept>", "</concept>"])
    suffix = tokens.convert_tokens_to_ids(["</text>", "<summary>"])
    return {
        "kind": "nla_model", "schema_version": 2, "role": role, "stage": "rl", "base_checkpoint": f"tiny-{family}",
        "d_model": D_MODEL, "trained_on": ["nothing"], "parent_checkpoints": [], "created_by": "tests",
        "extraction_layer_index": NLA_BLOCK, "critic": {"extraction_layer_index": NLA_BLOCK},
        "extraction": {"injection_scale": NLA_SCALE if role == "av" else None, "mse_scale": D_MODEL**0.5},
        "tokens": {
            "injection_char": MARKER, "injection_token_id": marker, "injection_left_neighbor_id": left,
            "injection_right_neighbor_id": right, "critic_suffix_ids": suffix,
        },
        "prompt_templates": {
            "av": "the cat sat <concept>{injection_char}</concept> in the night",
            "ar": "of the rain <text>{explanation}</text><summary>",
        },
    }  # fmt: skip


def _truncate(model: hf.PreTrainedModel, n_blocks: int) -> hf.PreTrainedModel:
    owner, blocks = find_blocks(model)
    name = next(name for name, child in owner.named_children() if child is blocks)
    setattr(owner, name, blocks[:n_blocks])
    config = model.config.get_text_config()
    config.num_hidden_layers = n_blocks
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:n_blocks]
    return model


def _adapt(model: hf.PreTrainedModel, base: Path, folder: Path) -> None:
    """Write a random LoRA adapter over all linear layers of the blocks."""
    import peft  # slow, and most tests need none

    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name and "vision" not in name
    ]
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=linear, init_lora_weights=False)
    torch.manual_seed(11)
    adapted = peft.get_peft_model(model, config)
    config.base_model_name_or_path = str(base)
    adapted.save_pretrained(folder, save_embedding_layers=False)


def _write_nla(family: str, folder: Path, *, adapters: bool = False) -> Path:
    for role in ("av", "ar"):
        home = folder / role
        model = _draw_weights(_FAMILIES[family]())
        if adapters:
            model.save_pretrained(folder / "base")
            _nla_tokenizer().save_pretrained(folder / "base")
        if role == "ar":
            model = _truncate(model, NLA_BLOCK + 1)
            head = torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(13)) / D_MODEL**0.5
        if adapters:
            _adapt(model, folder / "base", home)
        else:
            model.save_pretrained(home)
            _nla_tokenizer().save_pretrained(home)
        if role == "ar":
            safetensors.torch.save_file({"weight": head}, home / "value_head.safetensors")
        sidecar = yaml.safe_dump(_nla_sidecar(family, role), allow_unicode=True)
        (home / "nla_meta.yaml").write_text(sidecar, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def write_nla() -> Callable[..., Path]:
    """Writes a small random NLA of a family in the released contract: `folder/av` and `folder/ar`.

    `write_nla(family, folder, adapters=True)` writes PEFT adapters over `folder/base` in place of full directories.
    Its site is block NLA_BLOCK of `tiny(family)`.
    """
    return _write_nla


@pytest.fixture(scope="session")
def nla_tokenizer() -> Callable[[], hf.PreTrainedTokenizerFast]:
    return _nla_tokenizer
