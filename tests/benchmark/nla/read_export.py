"""What an exported NLA gives, computed with transformers alone (4 or 5) as clients of the released NLAs do.

Run as a script: `python read_export.py OUT.safetensors FOLDER...`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

TEXT = "the cat sat late in the rain"


def load(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """The model, tokenizer and sidecar in a folder."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return model.eval(), tokenizer, yaml.safe_load((folder / "nla_meta.yaml").read_text(encoding="utf-8"))


@torch.no_grad()
def read_av(folder: Path) -> dict[str, torch.Tensor]:
    """The prompt's ids and logits."""
    model, tokenizer, sidecar = load(folder)
    content = sidecar["prompt_templates"]["av"].format(injection_char=sidecar["tokens"]["injection_char"])
    message = {"role": "user", "content": content}
    ids = tokenizer.apply_chat_template([message], tokenize=True, add_generation_prompt=True, return_dict=False)
    return {"ids": torch.tensor(ids), "logits": model(torch.tensor([ids])).logits[0].contiguous()}


@torch.no_grad()
def read_ar(folder: Path) -> dict[str, torch.Tensor]:
    """The ids of a text's prompt and its vector: no final norm, last token, value head."""
    model, tokenizer, sidecar = load(folder)
    ids = tokenizer(sidecar["prompt_templates"]["ar"].format(explanation=TEXT), add_special_tokens=True)["input_ids"]
    assert tokenizer.bos_token_id in (None, ids[0])  # what the released reader insists on
    model.model.norm = torch.nn.Identity()
    state = model.model(torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1]
    head = load_file(folder / "value_head.safetensors")["weight"].float()
    return {"ids": torch.tensor(ids), "vector": head @ state}


def main(out: str, *folders: str) -> None:
    """Write what the exported NLAs in `folders` give, with the version of transformers that did it."""
    found = {"version": torch.tensor(int(transformers.__version__.split(".")[0]))}
    for folder in folders:
        for half, values in (("av", read_av(Path(folder) / "av")), ("ar", read_ar(Path(folder) / "ar"))):
            found.update({f"{Path(folder).name}/{half}/{name}": value for name, value in values.items()})
    save_file(found, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
