"""Every token of the vocabulary tried at the next position, once for any number of targets.

What a candidate's state is does not depend on the target, so one scan serves the targets of all arms and strengths
that share a prefix. Only the blocks up to the site run, after the prefix's cache, candidates in large batches.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .errors import BadInput
from .inversion_kernels import Multiply, attend_to_shared_prefix, multiply_by, pack_linears
from .subject import Prefix, Subject

#: Candidates in one batch. On a CPU their activations then stay in the cache of the cores.
ROWS_ON_CPU, ROWS_ON_ACCELERATOR = 256, 2048

#: The shared prefix is used where it gives the state of the plain cache within this, relative to the state's norm.
#: Float32 alone differs by 1e-6; a mask or a position that is wrong, by more than a tenth.
SAME_STATE = 1e-4

#: Tokens scored in float32 beside the survivors of a pre-scan, at random, to see how far it errs.
MARGIN_SAMPLE = 256

#: Of the vocabulary; where more would survive a pre-scan, the whole of it is scored in float32.
MOST_SURVIVORS = 0.25


@dataclass(frozen=True)
class Nearest:
    """What one scan found. tokens: [n_targets, k] int64, nearest first; distances: [n_targets, k] float32, L2.

    rescored: candidates scored in float32 after a pre-scan (all of them where there was none). error: the largest
    error of a distance that the pre-scan was seen to make (0 where there was none). shared: whether candidates
    attended to one shared prefix; otherwise its cache was copied for each.
    """

    tokens: Tensor
    distances: Tensor
    rescored: int
    error: float
    shared: bool
    seconds: float


@dataclass
class Scanner:
    """Scans the vocabulary of a subject at a site. State: weights laid out for this machine, made when first used.

    layer: site K, the stream after block K. prescan: narrow the field in bfloat16; distances and winners are float32
    either way. The subject must be in float32.
    """

    subject: Subject
    layer: int
    prescan: bool = False
    rows: int = 0  # candidates in one batch; 0: as fits the device
    _packed: dict[torch.dtype, dict[nn.Linear, Multiply]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.subject.check_layer(self.layer)
        if self.subject.dtype != torch.float32:
            raise BadInput(
                f"The subject {self.subject.name!r} is in {self.subject.dtype}; an inversion is decided in float32, "
                "since in bfloat16 not even natural states come back within 1e-5. Load it with dtype float32."
            )
        self.rows = self.rows or (ROWS_ON_CPU if self.subject.device.type == "cpu" else ROWS_ON_ACCELERATOR)

    def extend(self, prefix: Prefix | None, token: int) -> Prefix:
        """The prefix with one more token, for the blocks that a scan runs."""
        return self.subject.make_prefix([token], self.layer, after=prefix)

    def empty_prefix(self) -> Prefix:
        """The prefix of the first position: no tokens."""
        config = self.subject.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        nothing = torch.zeros(1, heads, 0, width, dtype=self.subject.dtype)
        each = tuple(nothing.to(self.subject.device_of(block)) for block in range(self.layer + 1))
        return Prefix((), each, each)

    @torch.inference_mode()
    def scan(self, prefix: Prefix, targets: Tensor, k: int = 5) -> Nearest:
        """The k tokens whose states after the prefix lie nearest to each target.

        targets: [n_targets, d_model], any dtype; compared in float32.
        """
        start = time.perf_counter()
        wanted = targets.to(self.subject.device, torch.float32)
        every = torch.arange(self.subject.vocab_size, device=self.subject.device)
        k = min(k, len(every))
        shared = self.shares(prefix)
        rescored, error = len(every), 0.0
        if (
            not self.prescan or not prefix.ids
        ):  # first tokens are attention sinks: bfloat16 errs by more than they differ
            distances = self.distances(prefix, every, wanted, shared=shared)
        else:
            coarse = self.distances(prefix, every, wanted, dtype=torch.bfloat16, shared=shared)
            distances, rescored, error = self._rescore(prefix, wanted, coarse, k, shared)
        found = distances.topk(k, largest=False)
        seconds = time.perf_counter() - start
        return Nearest(found.indices.cpu(), found.values.cpu(), rescored, error, shared, seconds)

    def distances(
        self, prefix: Prefix, tokens: Tensor, targets: Tensor, *, dtype: torch.dtype = torch.float32, shared: bool
    ) -> Tensor:
        """L2 from each target to each token's state [n_targets, n_tokens], float32; matrix products in `dtype`."""
        found = [_distances(states, targets) for states in self.states(prefix, tokens, dtype=dtype, shared=shared)]
        return torch.cat(found, dim=1)

    def states(
        self, prefix: Prefix, tokens: Tensor, *, dtype: torch.dtype = torch.float32, shared: bool
    ) -> Iterator[Tensor]:
        """The streams at the site of each token after the prefix, batch by batch: [rows, d_model] float32."""
        if dtype not in self._packed:
            self._packed[dtype] = pack_linears(self.subject, self.layer, dtype, self.rows)
        for batch in torch.split(tokens, self.rows):
            with contextlib.ExitStack() as stack:
                stack.enter_context(multiply_by(self._packed[dtype]))
                kept = stack.enter_context(attend_to_shared_prefix(self.subject, prefix)) if shared else prefix
                yield self._forward(kept, batch)

    def narrows(self) -> bool:
        """Whether a pre-scan has anything to gain: not where no map of the blocks is a plain linear one (int8)."""
        return self.prescan and any(type(module) is nn.Linear for module in self.subject.blocks.modules())

    def _forward(self, prefix: Prefix, tokens: Tensor) -> Tensor:
        ids = tokens[:, None]
        streams = self.subject.run(ids, torch.ones_like(ids), capture=[self.layer], prefix=prefix)
        return streams[self.layer][:, 0].to(self.subject.device)  # where the targets are, and all that is compared

    @torch.inference_mode()
    def shares(self, prefix: Prefix) -> bool:
        """Whether candidates can attend to one shared prefix: they get the states that they get by the plain cache.

        Tried on a few tokens, since families differ (windows shorter than the prefix, attention of their own). Where
        not, the prefix's cache is copied for every candidate.
        """
        tokens = torch.linspace(0, self.subject.vocab_size - 1, 4, device=self.subject.device).long()
        plain = self._forward(prefix, tokens)
        try:
            with attend_to_shared_prefix(self.subject, prefix) as shared:
                ours = self._forward(shared, tokens)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return False  # a family whose attention does not go through the interface, or wants other arguments
        return bool(((ours - plain).norm(dim=1) <= SAME_STATE * plain.norm(dim=1)).all())

    def _rescore(
        self, prefix: Prefix, targets: Tensor, coarse: Tensor, k: int, shared: bool
    ) -> tuple[Tensor, int, float]:
        """Float32 distances [n_targets, vocab] of every token that may be among the k nearest; infinite elsewhere.

        A token may be, if its coarse distance is at most the k-th nearest float32 distance so far plus twice the
        largest error seen for that target. Errors are seen on all tokens scored again, a random sample among them, and
        the search goes on until no unscored token is that near.
        """
        n_tokens = coarse.shape[1]
        generator = torch.Generator().manual_seed(0)
        sample = torch.randperm(n_tokens, generator=generator)[:MARGIN_SAMPLE].to(coarse.device)
        nearest = coarse.topk(k, largest=False).indices.flatten()
        exact = torch.full_like(coarse, float("inf"))
        scored = torch.zeros(n_tokens, dtype=torch.bool, device=coarse.device)
        pending = torch.unique(torch.cat([sample, nearest]))
        while len(pending):
            exact[:, pending] = self.distances(prefix, pending, targets, shared=shared)
            scored[pending] = True
            error = _largest_error(exact, coarse, scored)
            kth = exact.topk(k, largest=False).values[:, -1:]
            pending = ((coarse - 2 * error <= kth).any(0) & ~scored).nonzero()[:, 0]
            if len(pending) > MOST_SURVIVORS * n_tokens:
                pending = (~scored).nonzero()[:, 0]
        return exact, int(scored.sum()), float(error.min(dim=1).values.max())


def _largest_error(exact: Tensor, coarse: Tensor, scored: Tensor) -> Tensor:
    """The largest error of a distance that is to be expected of each token, from the scored ones [n_targets, n_tokens].

    Some tokens become attention sinks, with states a hundred times as long as others' and errors to match. Those err
    in proportion to their distance, and are taken apart from the rest, whose errors are alike.
    """
    seen, far = torch.where(scored, (exact - coarse).abs(), 0), coarse > 2 * coarse.median(dim=1, keepdim=True).values
    near = torch.where(far, 0, seen).amax(1, keepdim=True)
    share = torch.where(far, seen / coarse.clamp(min=1e-30), 0).amax(1, keepdim=True)
    return torch.where(far, torch.maximum(share * coarse, near), near)


def _distances(states: Tensor, targets: Tensor) -> Tensor:
    """L2 [n_targets, n_states]. By differences: ‖a‖² + ‖b‖² - 2⟨a, b⟩ loses everything below a thousandth of ‖a‖."""
    return torch.cdist(targets, states.float(), compute_mode="donot_use_mm_for_euclid_dist")
