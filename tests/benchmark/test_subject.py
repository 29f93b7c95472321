"""Facts about reading, entering and leaving a model: every family, every way of padding, against its plain forward."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.loading import load_subject
from nlabench.benchmark.subject import Prefix, Subject, find_blocks, pad_batch, wrap_subject
from torch import Tensor, nn

FIRST = [3, 41, 17, 29, 8, 33, 52]  # tokens that come first in every row; longer than the tiny models' window of 5
ROWS = [[11, 4, 50], [9, 23, 42, 7, 36, 19, 5, 31], [44, 6, 15, 27, 38, 12, 49, 21, 33, 10, 47, 18]]
LAYERS = range(3)  # every block but the last, whose hidden state transformers reports after the final norm
#: Largest difference over largest entry; an error in a mask or a position is a hundred thousand times this.
TOLERANCE = 5e-6

Tiny = Callable[[str], Subject]


def plain_states(subject: Subject, ids: Sequence[int]) -> tuple[Tensor, ...]:
    """transformers' own hidden states of one row, nothing padded or cached. Each [t, d_model]."""
    with torch.inference_mode():
        out = subject.model(input_ids=torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False)
    return tuple(states[0] for states in out.hidden_states)


def plain_logits(subject: Subject, ids: Sequence[int]) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = subject.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    return logits


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def count_calls(subject: Subject) -> tuple[list[int], Callable[[], None]]:
    """How often each block's attention runs, and what stops the counting."""
    calls = [0] * subject.n_blocks

    def counter(number: int) -> Callable[..., None]:
        def count(*_: object) -> None:
            calls[number] += 1

        return count

    # The first child that holds weights: a block that is skipped still has its own hooks called.
    inner = [
        next(m for m in block.modules() if isinstance(m, nn.Linear) or "Conv1D" in str(type(m)))
        for block in subject.blocks
    ]
    handles = [module.register_forward_hook(counter(number)) for number, module in enumerate(inner)]
    return calls, lambda: [handle.remove() for handle in handles] and None


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [False, True], ids=["padded right", "padded left"])
def test_what_we_read_equals_hidden_states_of_the_plain_forward(any_tiny: Subject, left: bool) -> None:
    ids, mask = pad_batch(ROWS, left=left)
    streams = any_tiny.run(ids, mask, capture=LAYERS)
    for row, tokens in enumerate(ROWS):
        wanted = plain_states(any_tiny, tokens)
        for layer in LAYERS:
            assert relative_error(streams[layer][row, mask[row] == 1], wanted[layer + 1]) < TOLERANCE


def test_a_row_that_shares_a_prefix_reads_as_the_whole_text_does(any_tiny: Subject) -> None:
    prefix = any_tiny.make_prefix(FIRST, last_block=2)
    ids, mask = pad_batch(ROWS)
    streams = any_tiny.run(ids, mask, capture=LAYERS, prefix=prefix)
    for row, tokens in enumerate(ROWS):
        wanted = plain_states(any_tiny, FIRST + tokens)
        for layer in LAYERS:
            assert relative_error(streams[layer][row, : len(tokens)], wanted[layer + 1][len(FIRST) :]) < TOLERANCE


@pytest.mark.parametrize("prefixed", [False, True])
def test_one_row_alone_reads_as_it_does_in_a_batch(any_tiny: Subject, prefixed: bool) -> None:
    prefix = any_tiny.make_prefix(FIRST, last_block=2) if prefixed else None
    together = any_tiny.run(*pad_batch(ROWS), capture=[2], prefix=prefix)[2]
    for row, tokens in enumerate(ROWS):
        alone = any_tiny.run(*pad_batch([tokens]), capture=[2], prefix=prefix)[2][0]
        assert relative_error(together[row, : len(tokens)], alone) < TOLERANCE


def test_left_padding_after_a_prefix_is_read_right_or_refused(any_tiny: Subject) -> None:
    # transformers counts a sliding window in slots of the cache: padding between prefix and row would use it up.
    prefix = any_tiny.make_prefix(FIRST, last_block=2)
    ids, mask = pad_batch(ROWS, left=True)
    if any_tiny.has_window_under(len(FIRST) + ids.shape[1]):
        with pytest.raises(ValueError, match="Pad these rows on the right"):
            any_tiny.run(ids, mask, capture=[2], prefix=prefix)
        ids, mask = pad_batch([ROWS[2], ROWS[2]], left=True)  # nothing is padded: nothing is in the way
        assert any_tiny.run(ids, mask, capture=[2], prefix=prefix)[2].isfinite().all()
        return
    streams = any_tiny.run(ids, mask, capture=[2], prefix=prefix)[2]
    for row, tokens in enumerate(ROWS):
        wanted = plain_states(any_tiny, FIRST + tokens)[3][len(FIRST) :]
        assert relative_error(streams[row, -len(tokens) :], wanted) < TOLERANCE


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3-text", "gemma3"])
def test_the_tiny_windows_are_short_enough_to_matter(tiny: Tiny, family: str) -> None:
    # Without this, the tests above would prove nothing about sliding layers.
    narrow, wide = tiny(family), copy.deepcopy(tiny(family))
    assert narrow.has_window_under(len(ROWS[2]))
    text = wide.model.config.get_text_config()
    text.sliding_window = 100
    for module in wide.model.modules():
        if getattr(module, "sliding_window", None) is not None:
            module.sliding_window = 100
    narrow_states, wide_states = plain_states(narrow, ROWS[2])[1], plain_states(wide, ROWS[2])[1]
    assert torch.equal(narrow_states[:5], wide_states[:5])
    assert relative_error(narrow_states[6:], wide_states[6:]) > 0.05


def test_a_window_longer_than_the_text_is_no_window(tiny: Tiny) -> None:
    assert not tiny("mistral").has_window_under(5)
    assert tiny("mistral").has_window_under(6)
    assert not tiny("llama").has_window_under(10_000)


def test_the_stream_after_the_last_block_is_read_before_the_final_norm(any_tiny: Subject) -> None:
    last = any_tiny.n_blocks - 1
    stream = any_tiny.run(*pad_batch([ROWS[1]]), capture=[last])[last][0]
    norm = next(m for name, m in any_tiny.backbone.named_children() if "norm" in name or name == "ln_f")
    with torch.inference_mode():
        assert relative_error(norm(stream), plain_states(any_tiny, ROWS[1])[-1]) < TOLERANCE
    assert relative_error(stream, plain_states(any_tiny, ROWS[1])[-1]) > 0.01


def test_what_stands_at_a_padded_place_changes_nothing(any_tiny: Subject) -> None:
    ids, mask = pad_batch(ROWS)
    other = torch.where(mask == 1, ids, 13)
    first, second = (any_tiny.run(i, mask, capture=[2])[2] for i in (ids, other))
    assert torch.equal(first[mask == 1], second[mask == 1])


# -- blocks that need not run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 2])
def test_blocks_past_the_site_never_run(any_tiny: Subject, layer: int) -> None:
    calls, stop = count_calls(any_tiny)
    try:
        prefix = any_tiny.make_prefix(FIRST, last_block=layer)
        any_tiny.run(*pad_batch(ROWS), capture=[layer], prefix=prefix)
    finally:
        stop()
    assert calls == [2] * (layer + 1) + [0] * (any_tiny.n_blocks - layer - 1)


@pytest.mark.parametrize("prefixed", [False, True])
@pytest.mark.parametrize("entered", [0, 1])
def test_entering_after_a_block_gives_the_stream_of_the_whole_forward(
    any_tiny: Subject, entered: int, prefixed: bool
) -> None:
    prefix = any_tiny.make_prefix(FIRST, last_block=2) if prefixed else None
    ids, mask = pad_batch(ROWS)
    whole = any_tiny.run(ids, mask, capture=LAYERS, prefix=prefix)
    calls, stop = count_calls(any_tiny)
    try:
        entry = (entered, whole[entered])
        later = any_tiny.run(ids, mask, capture=range(entered, 3), prefix=prefix, enter=entry)
    finally:
        stop()
    assert calls == [0] * (entered + 1) + [1] * (2 - entered) + [0]
    for layer in range(entered, 3):
        assert torch.equal(later[layer], whole[layer])


def test_unembedding_the_last_stream_gives_the_logits(any_tiny: Subject) -> None:
    last = any_tiny.n_blocks - 1
    stream = any_tiny.run(*pad_batch([ROWS[2]]), capture=[last])[last][0]
    calls, stop = count_calls(any_tiny)
    try:
        logits = any_tiny.unembed(stream)
    finally:
        stop()
    assert relative_error(logits, plain_logits(any_tiny, ROWS[2])) < TOLERANCE
    assert sum(calls) == 0


def test_leaving_early_and_skipping_blocks_leave_the_model_as_it_was(any_tiny: Subject) -> None:
    before = plain_logits(any_tiny, ROWS[2])
    weights = {name: parameter.clone() for name, parameter in any_tiny.model.named_parameters()}
    stream = any_tiny.run(*pad_batch(ROWS), capture=[1], prefix=any_tiny.make_prefix(FIRST))[1]
    any_tiny.run(*pad_batch(ROWS), capture=[2], enter=(1, stream), edits={2: lambda states, *_: states + 1})
    any_tiny.unembed(stream[0])
    with pytest.raises(RuntimeError, match="an edit that fails"):
        any_tiny.run(*pad_batch(ROWS), capture=[2], enter=(0, stream), edits={1: _fail})
    assert torch.equal(plain_logits(any_tiny, ROWS[2]), before)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in any_tiny.model.named_parameters())
    assert not any("forward" in vars(block) for block in any_tiny.blocks)


def _fail(*_: object) -> Tensor:
    raise RuntimeError("an edit that fails")


def test_an_edit_is_what_a_forward_hook_adds(any_tiny: Subject) -> None:
    shifts = torch.randn(len(ROWS), any_tiny.d_model, generator=torch.Generator().manual_seed(1))
    streams = any_tiny.run(
        *pad_batch(ROWS), capture=[2], edits={1: lambda states, rows, prefill: states + shifts[rows][:, None]}
    )[2]
    for row, tokens in enumerate(ROWS):
        handle = any_tiny.blocks[1].register_forward_hook(_adding(shifts[row]))
        try:
            wanted = plain_states(any_tiny, tokens)[3]
        finally:
            handle.remove()
        assert relative_error(streams[row, : len(tokens)], wanted) < TOLERANCE


def _adding(shift: Tensor) -> Callable[..., object]:
    def hook(_: object, __: object, output: object) -> object:
        if isinstance(output, tuple):
            return (output[0] + shift, *output[1:])
        return output + shift

    return hook


def test_one_prefix_serves_many_batches(tiny: Tiny) -> None:
    # The cache is written in place: what one batch writes must not reach the next.
    subject = tiny("gemma3-text")
    prefix = subject.make_prefix(FIRST, last_block=2)
    first = subject.run(*pad_batch(ROWS), capture=[2], prefix=prefix)[2]
    subject.run(*pad_batch(ROWS[::-1]), capture=[2], prefix=prefix)
    assert torch.equal(subject.run(*pad_batch(ROWS), capture=[2], prefix=prefix)[2], first)
    assert [len(layer[0, 0]) for layer in prefix.keys] == [len(FIRST)] * 3


def test_an_empty_prefix_is_no_prefix(tiny: Tiny) -> None:
    subject = tiny("llama")
    bare, empty = (subject.run(*pad_batch(ROWS), capture=[2], prefix=p)[2] for p in (None, Prefix((), (), ())))
    mask = pad_batch(ROWS)[1] == 1
    assert relative_error(empty[mask], bare[mask]) < TOLERANCE


# -- the default subject ----------------------------------------------------------------------------------------------


def test_the_default_subject_reads_as_transformers_does(subject: Subject) -> None:
    first, texts = subject.encode("Notes from a long journey. "), ["The rain fell on the roof of the barn.", "Why not?"]
    rows = [subject.encode(text) for text in texts]
    streams = subject.run(*pad_batch(rows), capture=[9, 19], prefix=subject.make_prefix(first, 19))
    for row, tokens in enumerate(rows):
        wanted = plain_states(subject, first + tokens)
        for layer in (9, 19):
            assert relative_error(streams[layer][row, : len(tokens)], wanted[layer + 1][len(first) :]) < 1e-5


def test_the_default_subject_is_named_hashed_and_float32(subject: Subject) -> None:
    assert (subject.name, subject.n_blocks, subject.d_model) == ("smollm2-135m-instruct-q4_1", 30, 576)
    assert subject.dtype == torch.float32
    weights, configuration = subject.fingerprint.split("/")
    assert (len(weights), len(configuration)) == (16, 8)
    assert not subject.model.training


def test_a_chat_request_ends_where_the_answer_begins(subject: Subject, tiny: Tiny) -> None:
    chat = subject.tokenizer.decode(subject.chat_ids("How are you?"))
    assert "How are you?" in chat
    assert chat.rstrip().endswith("assistant")
    assert subject.tokenizer.convert_tokens_to_ids("<|im_end|>") in subject.stop_ids()
    bare = tiny("llama")  # no chat template: plain text after the tokenizer's own BOS
    assert bare.chat_ids("the cat") == [bare.tokenizer.bos_token_id, *bare.encode("the cat\n")]


def test_encoding_adds_no_special_tokens(tiny: Tiny) -> None:
    subject = tiny("llama")
    assert subject.tokenizer.encode("the cat")[0] == subject.tokenizer.bos_token_id
    assert subject.encode("the cat") == subject.tokenizer.encode("the cat")[1:]


# -- finding the blocks, naming the layers ----------------------------------------------------------------------------


def test_the_vision_towers_blocks_are_not_the_subjects(tiny: Tiny) -> None:
    subject = tiny("gemma3")
    names = {module: name for name, module in subject.model.named_modules()}
    assert "language_model" in names[subject.blocks]
    towers = [m for n, m in subject.model.named_modules() if "vision" in n and isinstance(m, nn.ModuleList)]
    assert any(len(tower) == len(subject.blocks) for tower in towers)


def test_an_encoder_has_no_decoder_blocks() -> None:
    config = hf.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, is_decoder=True
    )
    with pytest.raises(BadInput, match=r"BertLMHeadModel has 0 lists of 2 blocks .* has one. Choose a causal"):
        find_blocks(hf.BertLMHeadModel(config))


def test_two_lists_that_fit_are_refused(tiny: Tiny) -> None:
    model = copy.deepcopy(tiny("llama").model)
    model.spare = copy.deepcopy(model.model)
    with pytest.raises(BadInput, match="LlamaForCausalLM has 2 lists of 4 blocks"):
        wrap_subject(model, None, "two", "two")


@pytest.mark.parametrize("layer", [-1, 4, 400])
def test_a_layer_that_is_not_there_is_named_with_the_range(tiny: Tiny, layer: int) -> None:
    with pytest.raises(BadInput, match=rf"Layer {layer} was asked for, but 'tiny-llama' has 4 blocks, numbered 0 to 3"):
        tiny("llama").check_layer(layer)


def test_a_layer_that_is_there_is_returned(subject: Subject, tiny: Tiny) -> None:
    assert [tiny("llama").check_layer(layer) for layer in range(4)] == [0, 1, 2, 3]
    with pytest.raises(BadInput, match="two thirds of the depth is 19"):
        subject.check_layer(30)


# -- loading ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def checkpoint(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "my-model"
    tiny("gemma2").model.save_pretrained(folder)
    tiny("gemma2").tokenizer.save_pretrained(folder)
    return folder


def test_a_local_folder_loads_as_the_model_it_was_saved_from(checkpoint: Path, tiny: Tiny) -> None:
    loaded = load_subject(str(checkpoint), device="cpu")
    assert (loaded.name, loaded.dtype) == ("my-model", torch.float32)
    assert torch.equal(plain_logits(loaded, ROWS[0]), plain_logits(tiny("gemma2"), ROWS[0]))
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_the_fingerprint_follows_the_weights_and_not_the_folders_name(checkpoint: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    for file in checkpoint.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    assert load_subject(str(copied)).fingerprint == load_subject(str(checkpoint)).fingerprint
    weights = copied / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load_subject(str(copied)).fingerprint != load_subject(str(checkpoint)).fingerprint


def test_a_dtype_that_is_asked_for_is_the_dtype_that_runs(checkpoint: Path) -> None:
    assert load_subject(str(checkpoint), dtype="bfloat16", device="cpu").dtype == torch.bfloat16


def test_an_embedder_is_no_subject() -> None:
    with pytest.raises(BadInput, match=r"'all-minilm-l6-v2' is a sentence embedder, not a language model"):
        load_subject("all-minilm-l6-v2")


def test_a_folder_without_a_model_is_refused_with_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"could not be loaded: .* a folder with a transformers checkpoint"):
        load_subject(str(tmp_path))


def test_a_truncated_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    for file in checkpoint.iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(content[: len(content) // 2] if file.suffix == ".safetensors" else content)
    with pytest.raises(BadInput, match="could not be loaded"):
        load_subject(str(tmp_path))


# -- padding ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9), min_size=1, max_size=6), st.booleans())
def test_padding_keeps_every_token_and_marks_the_rest(rows: list[list[int]], left: bool) -> None:
    ids, mask = pad_batch(rows, left=left)
    assert ids.shape == mask.shape == (len(rows), max(map(len, rows)))
    assert [row[seen == 1].tolist() for row, seen in zip(ids, mask, strict=True)] == rows
    assert (ids[mask == 0] == 0).all()
    assert (mask[:, -1 if left else 0] == 1).all()
    assert math.prod(mask.shape) - int(mask.sum()) == sum(ids.shape[1] - len(row) for row in rows)
