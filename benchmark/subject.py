"""A subject: the causal language model whose residual stream is read, steered and restarted. `loading` loads one.

Blocks are found by structure (the one ModuleList as long as the config says), so every decoder family of transformers
works without a table of names. Nothing past the last block that is asked for ever runs, and a shared prefix runs once.

A subject may be split over several devices (`load_subject(device_map=…)`): what enters is moved to where it is needed,
and a captured stream stays where its block computed it.

Site convention, everywhere: *site K* is the residual stream after block K, which is `hidden_states[K + 1]` of
transformers' output (for the very last block transformers reports the stream after the final norm instead; this module
reads it before the norm).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from .errors import BadInput
from .prefix import Prefix as Prefix  # whoever takes a subject takes its prefixes too

#: Changes the residual stream after a block: (states [b, t, d], rows [b] int64, prefill) -> states [b, t, d].
#: Block -1 is what enters block 0: the embeddings, scaled where the family scales them. `rows` says which rows of
#: the original batch are present; `prefill` is False for the tokens that were generated.
Edit = Callable[[Tensor, Tensor, bool], Tensor]


class _ReachedLastBlock(Exception):
    """Leaves the model's forward once the last block that is needed has run."""


@dataclass(frozen=True)
class Recipe:
    """How `load_subject` was called, for another process that is to load the same; fingerprint: of what it loaded."""

    spec: str
    dtype: str
    device: str
    trust_remote_code: bool
    fingerprint: str
    device_map: str | Mapping[str, int | str] | None = None
    quantize: str | None = None


@dataclass
class Subject:
    """A loaded causal language model with its blocks found. State: the model's weights, never changed."""

    name: str
    model: Any
    tokenizer: Any
    backbone: nn.Module
    blocks: nn.ModuleList
    d_model: int
    vocab_size: int
    fingerprint: str
    #: Absent where the weights are no longer, or never were, what a checkpoint has.
    recipe: Recipe | None = None

    @property
    def n_blocks(self) -> int:
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Where token ids and masks enter, and logits come out."""
        return self.device_of(0)

    def device_of(self, block: int) -> torch.device:
        """Where a block computes, and the stream after it lies."""
        module = self.blocks[block]
        # accelerate keeps weights that wait on the CPU or on disk as empty ones, and its hook says where they go.
        where = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        return next(module.parameters()).device if where is None else torch.device(where)

    @property
    def is_split(self) -> bool:
        """Whether accelerate has laid the model out over several devices, or has left parts of it elsewhere."""
        return any(hasattr(block, "_hf_hook") for block in self.blocks)

    @property
    def dtype(self) -> torch.dtype:
        """Of the residual stream: weights that are quantised are in another."""
        return next(p.dtype for p in self.blocks[0].parameters() if p.is_floating_point())

    def check_layer(self, layer: int) -> int:
        """The layer itself, if the subject has a block of that number.

        Raises:
            BadInput: the layer is negative or past the last block.
        """
        if not 0 <= layer < self.n_blocks:
            raise BadInput(
                f"Layer {layer} was asked for, but {self.name!r} has {self.n_blocks} blocks, numbered 0 to "
                f"{self.n_blocks - 1}. Site K is the stream after block K; choose a layer in that range "
                f"(two thirds of the depth is {round(2 * self.n_blocks / 3) - 1})."
            )
        return layer

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without special tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def encode_start(self, text: str) -> list[int]:
        """Token ids of the beginning of a prompt: with the tokenizer's own BOS where it has one, and no EOS."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=True)
        return ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids

    def chat_ids(self, request: str) -> list[int]:
        """Token ids of one user message, ready for the answer; plain text where there is no chat template."""
        if self.tokenizer.chat_template is None:
            return self.encode_start(f"{request}\n")
        ids: list[int] = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": request}], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return ids

    def stop_ids(self) -> set[int]:
        """The token ids that end a generated text."""
        configured = self.model.generation_config.eos_token_id
        ids = set(configured if isinstance(configured, list) else [configured])
        return {i for i in ids | {self.tokenizer.eos_token_id} if i is not None}

    def has_window_under(self, length: int) -> bool:
        """Whether some blocks see fewer than `length` tokens back (sliding or chunked attention).

        transformers counts a window in slots of the cache, padding included, where a row's own tokens are meant: no
        padding may then lie between a prefix and the tokens after it.
        """
        config = self.model.config.get_text_config()
        windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size"))
        return any(isinstance(window, int) and window < length for window in windows)

    # -- running part of the model ------------------------------------------------------------------------------

    @torch.inference_mode()
    def run(
        self,
        ids: Tensor,
        mask: Tensor,
        *,
        capture: Sequence[int],
        prefix: Prefix | None = None,
        enter: tuple[int, Tensor] | None = None,
        edits: Mapping[int, Edit] | None = None,
    ) -> dict[int, Tensor]:
        """Run the blocks up to the last captured one and return the streams after the captured blocks.

        ids: [b, t] int64, padded on either side; mask: [b, t], 1 on real tokens. After a prefix longer than a sliding
        window, pad on the right.
        enter: (j, states [b, t, d]): blocks 0..j are skipped, and `states` is the stream after block j.
        Returns {block: [b, t, d]}, in the subject's dtype, each on its block's own device (`device_of`).

        Raises:
            ValueError: rows are padded on the left after a prefix, and the subject's window would count the padding.
        """
        batch, length = ids.shape
        ids, mask = ids.to(self.device), mask.to(self.device)
        last = max(capture)
        if prefix and prefix.ids and self.has_window_under(len(prefix.ids) + length) and not bool(mask[:, 0].all()):
            raise ValueError(
                f"Rows padded on the left after a prefix of {len(prefix.ids)} tokens: the sliding window of "
                f"{self.name!r} would count the padding. Pad these rows on the right."
            )
        cache = self.start_cache(prefix, batch, len(prefix.ids) + length) if prefix else None
        captured: dict[int, Tensor] = {}
        with contextlib.ExitStack() as stack:
            if enter is not None:
                stack.enter_context(self._skip_blocks(*enter))
            for block, edit in (edits or {}).items():
                stack.enter_context(self._edit_block(block, edit, torch.arange(batch, device=ids.device)))
            for block in capture:
                stack.enter_context(self._capture_block(block, captured, leave=block == last))
            with contextlib.suppress(_ReachedLastBlock):
                self.backbone(**self._inputs(ids, mask, prefix), past_key_values=cache, use_cache=cache is not None)
        return captured

    @torch.inference_mode()
    def make_prefix(self, ids: Sequence[int], last_block: int | None = None, *, after: Prefix | None = None) -> Prefix:
        """The key-value cache of shared first tokens, for blocks 0..last_block (all blocks by default).

        after: a prefix that the ids follow, at least as deep; its tokens are not run again, and come first.

        Raises:
            ValueError: `after` lacks some of the blocks.
        """
        last = self.n_blocks - 1 if last_block is None else last_block
        if after is not None and len(after.keys) <= last:
            raise ValueError(f"The prefix to follow has {len(after.keys)} blocks; expected {last + 1}. Make it deeper.")
        first = after or Prefix((), (), ())
        cache = self.start_cache(first, 1, len(first.ids) + len(ids))
        tokens = torch.tensor([list(ids)], device=self.device)
        inputs = self._inputs(tokens, torch.ones_like(tokens), first)
        with self._capture_block(last, {}, leave=True), contextlib.suppress(_ReachedLastBlock):
            self.backbone(**inputs, past_key_values=cache, use_cache=True)
        layers: list[Any] = cache.layers[: last + 1]
        keys, values = (tuple(getattr(layer, name) for layer in layers) for name in ("keys", "values"))
        return Prefix((*first.ids, *ids), keys, values)

    def start_cache(self, prefix: Prefix, batch: int, room: int) -> Cache:
        """A cache for `batch` rows that starts with a prefix and has room for `room` tokens, each block's part where
        the block is (a prefix that another process made may have been laid out in another way)."""
        placed = prefix.on([self.device_of(block) for block in range(self.n_blocks)]) if self.is_split else prefix
        return placed.cache(batch, room, self.n_blocks)

    @torch.inference_mode()
    def unembed(self, vectors: Tensor) -> Tensor:
        """Logits of residual vectors through the final norm and the unembedding (every block skipped).

        vectors: [n, d_model]. Returns [n, vocab], in the subject's dtype, on its `device`.
        """
        states = vectors.to(self.device_of(self.n_blocks - 1), self.dtype)[:, None]
        ids = torch.zeros(len(vectors), 1, dtype=torch.long, device=self.device)
        with self._skip_blocks(self.n_blocks - 1, states):
            logits: Tensor = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        return logits[:, 0]

    def _inputs(self, ids: Tensor, mask: Tensor, prefix: Prefix | None) -> dict[str, Tensor]:
        # Positions count real tokens only, so left- and right-padded rows see the same ones.
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        if prefix is not None:
            positions = positions + len(prefix.ids)
            mask = torch.cat([mask.new_ones(len(ids), len(prefix.ids)), mask], dim=1)
        return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}

    # -- hooks --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _skip_blocks(self, last_skipped: int, states: Tensor) -> Iterator[None]:
        """Blocks 0..last_skipped cost nothing; the stream after them is `states`."""

        def skipped(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
            return hidden

        def entered(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
            return states.to(self.device_of(last_skipped), hidden.dtype)

        # The model's own forward still builds masks and rotary tables, which is what makes this work for every family.
        instead = {self.blocks[n]: entered if n == last_skipped else skipped for n in range(last_skipped + 1)}
        with shadow_forward(instead):
            yield

    @contextlib.contextmanager
    def _capture_block(self, block: int, captured: dict[int, Tensor], *, leave: bool) -> Iterator[None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            captured[block] = output[0] if isinstance(output, tuple) else output
            if leave:
                raise _ReachedLastBlock

        handle = self.blocks[block].register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    @contextlib.contextmanager
    def _edit_block(self, block: int, edit: Edit, rows: Tensor, prefill: bool = True) -> Iterator[None]:
        def hook_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (edit(args[0], rows, prefill), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"], rows, prefill)}

        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (edit(output[0], rows, prefill), *output[1:])
            return edit(output, rows, prefill)

        handle = (
            self.blocks[0].register_forward_pre_hook(hook_input, with_kwargs=True)
            if block == -1
            else self.blocks[block].register_forward_hook(hook)
        )
        try:
            yield
        finally:
            handle.remove()


@contextlib.contextmanager
def shadow_forward(instead: Mapping[Any, Callable[..., Any]]) -> Iterator[None]:
    """Inside, modules have another forward: an attribute of the instance, which shadows the method of its class.

    accelerate's hooks are such attributes too: a module that had one has it again afterwards.
    """
    before = {module: vars(module).get("forward") for module in instead}
    for module, forward in instead.items():
        module.forward = forward
    try:
        yield
    finally:
        for module, own in before.items():
            if own is None:
                del module.forward
            else:
                module.forward = own


def pad_batch(token_lists: Sequence[Sequence[int]], *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Pad token lists to one length. Returns (ids, mask), both [b, t] int64; padding has id 0 and mask 0."""
    length = max(map(len, token_lists))
    ids = torch.zeros(len(token_lists), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(token_lists):
        span = slice(length - len(tokens), length) if left else slice(0, len(tokens))
        ids[row, span] = torch.tensor(list(tokens), dtype=torch.long)
        mask[row, span] = 1
    return ids, mask


def find_blocks(model: nn.Module) -> tuple[nn.Module, nn.ModuleList]:
    """The decoder that owns the transformer blocks, and the blocks.

    The blocks are the ModuleList whose length is the text config's `num_hidden_layers` and which no vision or audio
    tower owns.

    Raises:
        BadInput: none or several lists fit.
    """
    config: Any = model.config
    depth = config.get_text_config().num_hidden_layers
    found = [
        (owner, child)
        for name, owner in model.named_modules()
        for child in owner.children()
        if isinstance(child, nn.ModuleList)
        and len(child) == depth
        and not any(tower in name for tower in ("vision", "visual", "audio", "encoder"))
    ]
    if len(found) != 1:
        raise BadInput(
            f"{type(model).__name__} has {len(found)} lists of {depth} blocks where a decoder-only language model has "
            "one. Choose a causal language model whose blocks form one list (Llama, Qwen, Gemma, Mistral, GPT-2, "
            "GPT-NeoX and their kin do)."
        )
    return found[0]


def wrap_subject(model: Any, tokenizer: Any, name: str, fingerprint: str) -> Subject:
    """A subject around a model that is already in memory."""
    backbone, blocks = find_blocks(model)
    text_config = model.config.get_text_config()
    return Subject(
        name=name,
        model=model.eval().requires_grad_(False),
        tokenizer=tokenizer,
        backbone=backbone,
        blocks=blocks,
        d_model=text_config.hidden_size,
        vocab_size=text_config.vocab_size,
        fingerprint=fingerprint,
    )
