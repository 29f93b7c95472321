"""The two models under training: an AV and an AR as low-rank adapters (PEFT) over the subject itself.

The base weights are frozen and kept in bfloat16; adapters are float32, under autocast. Of every prompt, the tokens
before the marker (AV) or before the explanation (AR) are the same in all rows: they run once a step, as one row whose
keys and values all others share, with gradients through them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nlabench.benchmark.subject import Subject, pad_batch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

MARKER = "<empty_output>"
AV_TEMPLATE = "Describe the text behind this vector: <concept>{injection_char}</concept>"
AR_TEMPLATE = "Summary of the following text: <text>{explanation}</text> <summary>"
OPENING, CLOSING = "<explanation>", "</explanation>"
#: Tokens of an answer at most; targets have up to 50. What goes on past this repeats itself.
LONGEST = 64


def add_adapter(model: Any, rank: int, seed: int) -> Any:
    """A PEFT model over `model` with adapters on every linear layer of its blocks; alpha is twice the rank."""
    torch.manual_seed(seed)
    # On a CPU the fused attention's backward takes longer than the plain one's, and rows are short.
    model.set_attn_implementation("eager")
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGETS, task_type="CAUSAL_LM")
    return get_peft_model(model, config).train()


@dataclass
class Actor:
    """The AV. State: its adapter.

    ids before and after the marker in the prompt; scale: the norm of an injected vector.
    """

    subject: Subject
    peft: Any
    before: list[int]
    after: list[int]
    scale: float

    @classmethod
    def start(cls, subject: Subject, rank: int, scale: float, seed: int) -> Actor:
        prompt = subject.chat_ids(AV_TEMPLATE.format(injection_char=MARKER))
        slot = prompt.index(subject.tokenizer.convert_tokens_to_ids(MARKER))
        return cls(subject, add_adapter(subject.model, rank, seed), prompt[:slot], prompt[slot + 1 :], scale)

    def target_ids(self, explanation: str) -> list[int]:
        """What the AV should write: the tagged explanation, and the end of its turn."""
        return [*self.subject.encode(f"{OPENING}{explanation}{CLOSING}"), self.subject.tokenizer.eos_token_id]

    def log_probabilities(self, vectors: Tensor, targets: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Log-probabilities [n, t] float32 of target token ids, and the mask [n, t] of real ones.

        vectors: [n, d_model].
        """
        model = self.peft.get_base_model()
        device = self.subject.device
        ids, mask = (part.to(device) for part in pad_batch(targets))
        rows, length = ids.shape
        after = torch.tensor(self.after, device=device).expand(rows, -1)
        with torch.autocast(device.type, torch.bfloat16):
            cache = model.model(input_ids=torch.tensor([self.before], device=device), use_cache=True).past_key_values
            embed = model.get_input_embeddings()
            injected = self.scale * nn.functional.normalize(vectors.to(device), dim=-1)[:, None]
            # The last target token predicts nothing.
            inputs = torch.cat([injected.to(embed.weight.dtype), embed(after), embed(ids[:, :-1])], dim=1)
            seen = torch.cat([mask.new_ones(rows, len(self.before) + 1 + after.shape[1]), mask[:, :-1]], dim=1)
            hidden = model.model(
                inputs_embeds=inputs, attention_mask=seen, past_key_values=_share(cache, rows), use_cache=True
            ).last_hidden_state
            # Real tokens only, in two dimensions: a slice of three would be multiplied as a batch of copies.
            real = mask.bool()
            logits = model.lm_head(hidden[:, -length:][real])
        chosen = torch.zeros(rows, length, device=device)
        chosen[real] = -nn.functional.cross_entropy(logits.float(), ids[real], reduction="none")
        return chosen, real

    def loss(self, vectors: Tensor, explanations: Sequence[str]) -> Tensor:
        """Mean negative log-probability of a token of the targets, in nats."""
        chosen, mask = self.log_probabilities(vectors, [self.target_ids(text) for text in explanations])
        return -chosen[mask].mean()

    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.peft.parameters() if p.requires_grad]

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in get_peft_model_state_dict(self.peft).items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        set_peft_model_state_dict(self.peft, state)

    def save(self, folder: Path) -> None:
        """The adapter as PEFT writes it, in float16."""
        save_adapter(self.peft, self.state(), folder, self.subject.name)


@dataclass
class Critic:
    """The AR: the subject's first blocks with an adapter, its final norm an identity, and a value head [d, d]."""

    subject: Subject
    peft: Any
    head: nn.Linear
    before: list[int]
    after: list[int]

    @classmethod
    def start(cls, subject: Subject, layer: int, rank: int, seed: int) -> Critic:
        """`subject` is cut to its blocks 0..layer, in place: give it one of its own."""
        model = subject.model
        model.model.layers = model.model.layers[: layer + 1]
        model.config.num_hidden_layers = layer + 1
        model.model.norm = nn.Identity()
        before, _, after = AR_TEMPLATE.partition("{explanation}")
        peft = add_adapter(model, rank, seed)
        head = nn.Linear(subject.d_model, subject.d_model, bias=False, device=subject.device)
        nn.init.eye_(head.weight)  # the last token's own state at the site is the first guess
        return cls(subject, peft, head, subject.encode_start(before), subject.encode(after))

    def predict(self, explanations: Sequence[str]) -> Tensor:
        """The vectors that the explanations stand for: [n, d_model], float32."""
        model, device = self.peft.get_base_model().model, self.subject.device
        # Padded on the left: the last column is the last token of every row.
        ids, mask = (
            part.to(device)
            for part in pad_batch([self.subject.encode(t) + self.after for t in explanations], left=True)
        )
        rows = len(ids)
        with torch.autocast(device.type, torch.bfloat16):
            cache = model(input_ids=torch.tensor([self.before], device=device), use_cache=True).past_key_values
            seen = torch.cat([mask.new_ones(rows, len(self.before)), mask], dim=1)
            positions = (seen.cumsum(-1) - 1)[:, len(self.before) :]
            hidden = model(
                input_ids=ids, attention_mask=seen, position_ids=positions, past_key_values=_share(cache, rows),
                use_cache=True,
            ).last_hidden_state[:, -1]  # fmt: skip
        return self.head(hidden.float())

    def loss(self, vectors: Tensor, explanations: Sequence[str]) -> Tensor:
        return mse_nrm(self.predict(explanations), vectors.to(self.subject.device)).mean()

    def parameters(self) -> list[nn.Parameter]:
        return [*(p for p in self.peft.parameters() if p.requires_grad), self.head.weight]

    def state(self) -> dict[str, Tensor]:
        adapter = {name: tensor.detach().cpu().clone() for name, tensor in get_peft_model_state_dict(self.peft).items()}
        return {**adapter, "value_head": self.head.weight.detach().cpu().clone()}

    def restore(self, state: dict[str, Tensor]) -> None:
        set_peft_model_state_dict(self.peft, {name: t for name, t in state.items() if name != "value_head"})
        with torch.no_grad():
            self.head.weight.copy_(state["value_head"])

    def save(self, folder: Path) -> None:
        state = self.state()
        head = state.pop("value_head")
        save_adapter(self.peft, state, folder, self.subject.name)
        save_file({"weight": head.half().contiguous()}, folder / "value_head.safetensors")


def mse_nrm(predicted: Tensor, gold: Tensor) -> Tensor:
    """Mean squared difference of two vectors, each scaled to L2 = sqrt(d): 2(1 - cos). [n, d] -> [n], 0 to 4."""
    return 2 * (1 - nn.functional.cosine_similarity(predicted, gold, dim=-1))


def save_adapter(peft: Any, state: dict[str, Tensor], folder: Path, base: str) -> None:
    """`adapter_config.json` and `adapter_model.safetensors` (float16), with the base by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    config = peft.peft_config["default"]
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(folder)
    # PEFT writes a set in any order, and a file that changes by itself has another hash each time.
    file = folder / "adapter_config.json"
    written = json.loads(file.read_text())
    file.write_text(json.dumps({**written, "target_modules": sorted(written["target_modules"])}, indent=1) + "\n")
    save_file(
        {name: tensor.half().contiguous() for name, tensor in state.items()}, folder / "adapter_model.safetensors"
    )


def load_state(folder: Path) -> dict[str, Tensor]:
    """What `save` wrote, as `restore` takes it."""
    state = {name: tensor.float() for name, tensor in load_file(folder / "adapter_model.safetensors").items()}
    head = folder / "value_head.safetensors"
    return {**state, "value_head": load_file(head)["weight"].float()} if head.exists() else state


def _share(cache: DynamicCache, rows: int) -> DynamicCache:
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1)
    return cache
