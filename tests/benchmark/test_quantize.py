"""A subject in 4 bits: another subject than the whole weights, by name and by what identifies it."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.loading import DEFAULT_SUBJECT, load_subject
from nlabench.benchmark.reading import make_preamble, read_states
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.verbalizers.base import name_of_base


def test_without_bitsandbytes_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else found(name, *a)
    )
    with pytest.raises(BadInput, match=r"nlabench\[bnb\]"):
        load_subject(DEFAULT_SUBJECT, quantize="4bit")


def test_an_unknown_quantisation_is_refused() -> None:
    with pytest.raises(BadInput, match="4bit"):
        load_subject(DEFAULT_SUBJECT, quantize="3bit")


def test_the_default_subject_in_4_bits_is_read_at_its_site_and_is_another_subject(subject: Subject) -> None:
    pytest.importorskip("bitsandbytes")
    small = load_subject(DEFAULT_SUBJECT, quantize="4bit", dtype="float32")
    assert small.name == f"{subject.name}-bnb-4bit"
    assert small.fingerprint != subject.fingerprint
    assert small.n_blocks == subject.n_blocks
    layer, ids = 4, subject.encode("The sea was calm and the boats lay still.")
    states = []
    for one in (subject, small):
        ((_, found),) = read_states(one, make_preamble(one, layer), [ids], [layer])
        states.append(found[layer].float())
    cosine = torch.cosine_similarity(*states)
    assert bool((cosine > 0.9).all())
    assert not torch.allclose(*states, rtol=1e-3)


def test_an_nla_of_the_whole_weights_may_read_the_subject_in_4_bits() -> None:
    named = "Qwen2.5-7B-Instruct-bnb-4bit"
    assert name_of_base("Qwen/Qwen2.5-7B-Instruct", named) == named
    assert name_of_base("Qwen/Qwen2.5-0.5B-Instruct", named) == "Qwen/Qwen2.5-0.5B-Instruct"
