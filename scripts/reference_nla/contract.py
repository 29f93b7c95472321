"""The sidecar of each half, in the released contract, every id read off the live tokenizer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from nlabench.benchmark.nla.sidecar import Sidecar, write_sidecar

from .documents import DJANGO, SETS
from .trainees import AR_TEMPLATE, AV_TEMPLATE, LONGEST, MARKER, Actor, Critic

TRAINED_ON = (
    f"{len(SETS)} sets of sae-probes 0.4.2 (news, reviews, stories, messages, essays, medical abstracts, rulings, web "
    f"pages, code) and the translation catalogues of {DJANGO.replace('==', ' ')}; no text of nlabench's concept pack"
)


def write_half(half: Actor | Critic, folder: Path, layer: int, recipe: str, rl_steps: int) -> None:
    """Write `nla_meta.yaml` beside an adapter."""
    subject = half.subject
    common = {
        "base_checkpoint": subject.name,
        "d_model": subject.d_model,
        "extraction_layer_index": layer,
        "trained_on": TRAINED_ON,
        "license": "Apache-2.0",
        "stage": "rl" if rl_steps else "sft",
        "created_at": time.strftime("%Y-%m-%d"),
        "created_by": f"scripts/train_reference_nla.py --recipe {recipe}"
        + (f" --rl-steps {rl_steps}" * bool(rl_steps)),
    }
    if isinstance(half, Actor):
        own: dict[str, Any] = {
            "role": "av",
            "extraction": {"injection_scale": half.scale},
            "tokens": {
                "injection_char": MARKER,
                "injection_token_id": subject.tokenizer.convert_tokens_to_ids(MARKER),
                "injection_left_neighbor_id": half.before[-1],
                "injection_right_neighbor_id": half.after[0],
            },
            "prompt_templates": {"av": AV_TEMPLATE},
            "max_new_tokens": LONGEST,
        }
    else:
        own = {
            "role": "ar",
            "extraction": {"mse_scale": subject.d_model**0.5},
            "tokens": {"critic_suffix_ids": half.after},
            "prompt_templates": {"ar": AR_TEMPLATE},
        }
    write_sidecar(Sidecar.model_validate({**common, **own}), folder)
