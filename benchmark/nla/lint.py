"""Linting a checkpoint of an NLA: the traps that NLAs have fallen into, each found in the files and named.

No model is loaded. Of the weights the headers are read, and for their values one file after another, a part at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..errors import BadInput
from .lint_card import check_card
from .lint_finding import Finding
from .lint_half import Half, read_half
from .lint_place import find_places
from .lint_portability import check_portability
from .lint_prompts import check_prompts
from .lint_sidecar import base_config, check_sidecar, short_name
from .lint_weights import check_structure, check_values
from .mending import mend_files
from .sidecar import SIDECAR

#: Rounds of mending: a sidecar that becomes readable may show what could not be seen before.
_MOST_ROUNDS = 5

#: Kinds of text on which tokenizers differ: spaces, digits, quotes, other scripts, code, rare characters.
_SAMPLE = 'The cat, 12 345 — "naïve"  日本語 {x}\n\tif x != 3: return ㈎🙂'


@dataclass(frozen=True)
class LintReport:
    """What was linted (a line for each half), what was found, what was not looked at, and what `--fix` changed."""

    halves: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    changed: tuple[str, ...] = ()

    @property
    def n_errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)


def lint_checkpoint(
    spec: str, *, weights: bool = True, fix: bool = False, say: Callable[[str], None] = lambda _: None
) -> LintReport:
    """Check an AV, an AR or a pair: `reference`, a folder, `AV,AR`, or a hub id.

    weights: whether their values are read; of a hub's checkpoint only the small files are fetched else.
    fix: mend first what can be mended safely. Weights are never touched, and no injection scale is invented.

    Raises:
        BadInput: nothing is there, no NLA, a sidecar that is no YAML; or a hub id with `fix`.
    """
    places = find_places(spec.removeprefix("nla:"), weights=weights, say=say)
    if fix and any(place.remote for place in places):
        raise BadInput(
            f"{spec!r} was fetched from a hub, and its files are the cache's. --fix changes files in place: download "
            "the checkpoint to a folder of your own (`hf download ID --local-dir DIR`) and lint that."
        )
    changed: list[str] = []
    for _ in range(_MOST_ROUNDS if fix else 0):
        lines = [
            f"{place.label}{line}" for place in places for line in mend_files(place.folder, _look_at(*read_half(place)))
        ]
        changed += lines
        if not lines:
            break
    halves = [read_half(place) for place in places]
    findings = [_label(half, finding) for half, unread in halves for finding in _look_at(half, unread)]
    if weights:
        findings += [_label(half, finding) for half, _ in halves for finding in check_values(half, say)]
    if len(halves) == 2:
        findings += _compare_halves(halves[0][0], halves[1][0])
    findings.sort(key=lambda finding: finding.severity)
    notes = tuple(note for half, _ in halves for note in _list_unseen(half, weights))
    return LintReport(tuple(_describe(half) for half, _ in halves), tuple(findings), notes, tuple(changed))


def _look_at(half: Half, unread: Sequence[Finding]) -> list[Finding]:
    """All that is found in one half without the values of its weights."""
    checks = (check_sidecar, check_prompts, check_structure, check_portability, check_card)
    return [*unread, *(finding for check in checks for finding in check(half))]


def _compare_halves(av: Half, ar: Half) -> Iterator[Finding]:
    file = f"{ar.place.label}{SIDECAR}"
    fix = "Give the two halves of one NLA."
    if av.sidecar is not None and ar.sidecar is not None:
        for name in ("extraction_layer_index", "d_model", "base_checkpoint"):
            reads, writes = getattr(av.sidecar, name), getattr(ar.sidecar, name)
            if reads is None or writes is None:
                continue
            same = short_name(reads) == short_name(writes) if name == "base_checkpoint" else reads == writes
            if not same:
                yield Finding("error", file, name, str(writes), f"{reads}, as the AV's", fix)
    if av.tokenizer is not None and ar.tokenizer is not None:
        ids = [half.tokenizer.encode(_SAMPLE, add_special_tokens=False) for half in (av, ar)]
        if ids[0] != ids[1] or av.tokenizer.get_vocab() != ar.tokenizer.get_vocab():
            found = "another tokenizer than the AV's"
            yield Finding("warning", f"{ar.place.label}tokenizer.json", "", found, "one tokenizer in both halves", fix)


def _label(half: Half, finding: Finding) -> Finding:
    return replace(finding, file=half.place.label + finding.file)


def _describe(half: Half) -> str:
    kind = getattr(half.text_config, "model_type", "unknown model")
    role = half.sidecar.role.upper() if half.sidecar else "half"
    layer = half.sidecar.extraction_layer_index if half.sidecar else None
    over = f"adapter over {half.base}, " if half.is_adapter else ""
    factor = half.embedding_factor
    times = f", embeddings multiplied by {factor:.4g} before the vector enters" if factor != 1 else ""
    width = f"{half.n_blocks} blocks, d_model {half.d_model}, vectors of block {layer}"
    return f"{half.place.label or half.place.name}: {role}, {over}{kind}, {width}{times}"


def _list_unseen(half: Half, weights: bool) -> Iterator[str]:
    label = f"{half.place.label or half.place.name}: "
    if not weights:
        yield f"{label}the values of the weights were not read"
    if half.sidecar is None:
        yield f"{label}only the names in the sidecar were checked, since it is not valid"
        return
    if half.tokenizer is None:
        yield f"{label}no prompt was checked, since there is no tokenizer"
    base = half.sidecar.base_checkpoint
    if base is not None and half.config is not None and base_config(base) is None:
        yield f"{label}not compared with {base!r}, its base_checkpoint, which is not on this machine"
