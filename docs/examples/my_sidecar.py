"""Write `nla_meta.yaml` beside an AV of yours, with the token ids that its own tokenizer has.

    python my_sidecar.py FOLDER

FOLDER: an ordinary transformers directory or a PEFT adapter, with its tokenizer. Needs transformers and pyyaml only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from transformers import AutoTokenizer

# From your training run. A wrong scale or block gives texts about nothing, and no error: nothing else knows them.
BASE = "smollm2-135m-instruct-q4_1"  # what `--subject` calls the model whose activations it reads
D_MODEL = 576
BLOCK = 19  # K: it reads the stream after block K, which is hidden_states[K + 1]
SCALE = 240.0  # the L2 norm at which vectors entered
LONGEST = 150  # tokens of the longest text that it learnt to write
MARKER = "<empty_output>"  # one token, whose embedding the vector replaces
TEMPLATE = "Describe the text behind this vector: <concept>{injection_char}</concept>"


def write_sidecar(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    message = {"role": "user", "content": TEMPLATE.format(injection_char=MARKER)}
    # In one step, as it was trained: a template that writes a BOS, encoded again, would get a second one.
    ids = tokenizer.apply_chat_template([message], add_generation_prompt=True, return_dict=False)
    (marker,) = tokenizer.encode(MARKER, add_special_tokens=False)
    slot = ids.index(marker)
    sidecar = {
        "kind": "nla_model",
        "schema_version": 2,
        "role": "av",
        "base_checkpoint": BASE,
        "d_model": D_MODEL,
        "extraction_layer_index": BLOCK,
        "extraction": {"injection_scale": SCALE},
        "tokens": {
            "injection_char": MARKER,
            "injection_token_id": marker,
            "injection_left_neighbor_id": ids[slot - 1],
            "injection_right_neighbor_id": ids[slot + 1],
        },
        "prompt_templates": {"av": TEMPLATE},
        "max_new_tokens": LONGEST,
        "trained_on": ["say what: it is shown beside every result"],
        "license": "apache-2.0",
    }
    (folder / "nla_meta.yaml").write_text(yaml.safe_dump(sidecar, allow_unicode=True, sort_keys=False), "utf-8")


if __name__ == "__main__":
    write_sidecar(Path(sys.argv[1]))
