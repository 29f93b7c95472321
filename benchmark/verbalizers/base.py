"""The protocol under test: what a verbalizer is, what it sees, and what it returns."""

from __future__ import annotations

import hashlib
import inspect
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ..activations import ActivationBatch, Site
from ..errors import BadInput

#: A text longer than this is refused: no describer of one vector needs it, and a browser would choke on it.
LONGEST_TEXT = 20_000

Role = Literal["submitted", "baseline", "floor", "ceiling", "reader"]


class VerbalizerCard(BaseModel):
    """What a verbalizer says of itself. `None` for subject, layer or width means that any will do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str = "1"
    role: Role = "submitted"
    description: str = ""
    subject: str | None = None
    layer: int | None = None
    d_model: int | None = None
    min_position: int | None = None
    authors: str = ""
    link: str = ""
    licence: str = ""
    training_data: str = ""
    #: Anything else that decides the texts (weights' hashes, prompt, decoding): part of the cache key and the record.
    settings: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Verbalization:
    """The text for one item. logprob: of the text under the verbalizer, in nats, where it has one.

    error: why there is no text; the item is then scored as an empty text and counted. flags: what a reader should know
    of the text (cut off, say), each worded so that it can follow a count of texts. samples: further texts of the same
    item; only `text` is scored.
    """

    text: str
    logprob: float | None = None
    error: str | None = None
    flags: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()


@runtime_checkable
class Verbalizer(Protocol):
    """Turns residual-stream vectors into texts. It sees vectors and their site, and nothing else."""

    @property
    def card(self) -> VerbalizerCard: ...

    def verbalize(self, batch: ActivationBatch) -> Sequence[Verbalization | str]:
        """One text per vector of the batch, in order; a text may not depend on the other vectors."""
        ...


@runtime_checkable
class Reconstructor(Protocol):
    """Turns texts back into vectors of a site."""

    def reconstruct(self, texts: Sequence[str], site: Site) -> Tensor:
        """One vector per text [n_texts, d_model], float32, raw scale; a vector may not depend on the other texts."""
        ...


@runtime_checkable
class Detector(Protocol):
    """A verbalizer that can tell, by its own lights, that a vector is none it should describe: a reject option."""

    @property
    def card(self) -> VerbalizerCard: ...

    def detect(self, batch: ActivationBatch) -> Sequence[float]:
        """A finite number per vector of the batch, in order, higher where the vector was more likely moved (steered).

        Only their order counts. A number may not depend on the other vectors.
        """
        ...


@dataclass(frozen=True)
class ReadPrompt:
    """What a text-only reader is given: the prompt up to the readout, its last token, and its last four."""

    text: str
    last_token: str
    last_four: str


@runtime_checkable
class TextReader(Protocol):
    """Reads the *prompt*, not the vector. Only the benchmark runs these: what they reach, text alone gives away."""

    @property
    def card(self) -> VerbalizerCard: ...

    def read(self, prompts: Sequence[ReadPrompt]) -> Sequence[Verbalization | str]: ...


@dataclass(frozen=True)
class FunctionVerbalizer:
    """A bare function `list[vector] -> list[str]`, wrapped. Each vector is a float32 tensor [d_model]."""

    function: Callable[[list[Tensor]], list[str]]
    card: VerbalizerCard

    def verbalize(self, batch: ActivationBatch) -> Sequence[Verbalization | str]:
        return self.function(list(batch.vectors))


def wrap_function(function: Callable[[list[Tensor]], list[str]], name: str | None = None) -> FunctionVerbalizer:
    """Make a verbalizer of a plain function (or any callable). Its code is its version: edited, it is run again."""
    called = name or str(getattr(function, "__name__", type(function).__name__))
    return FunctionVerbalizer(function, VerbalizerCard(name=called, settings={"code": hash_code(function)}))


def hash_code(thing: Any) -> str:
    """A hash of what a user's function or object does, as far as it can be seen from outside.

    Its source and that of every loaded module beside it, what it closes over, its defaults and its attributes.
    Weights on disk cannot be seen: a card that names their hash in `settings` is safe. An object that prints its
    address hashes anew in every process, and is then never taken from the store.
    """
    target = thing if inspect.isfunction(thing) else type(thing)
    parts = [
        repr(getattr(thing, "__defaults__", None)),
        repr(sorted(map(repr, getattr(thing, "__dict__", {}).items()))),
    ]
    parts += [repr(cell.cell_contents) for cell in getattr(thing, "__closure__", None) or ()]
    try:
        home = Path(inspect.getfile(target)).resolve().parent
        beside = {m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)}
        # Some modules are no files and name one all the same, without a folder (torch.ops: "_ops.py").
        files = sorted(f for f in beside if f and Path(f).is_absolute() and Path(f).resolve().parent == home)
        parts += [inspect.getsource(target), *(Path(f).read_text(errors="replace") for f in files if f.endswith(".py"))]
    except (OSError, TypeError):
        parts.append(repr(thing))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def name_of_base(base: str | None, subject: str | None) -> str | None:
    """The subject that a verbalizer trained on `base` is for.

    It goes by the run's own name of its subject where the two differ by path, revision or 4 bits only.
    """
    if base is None or subject is None:
        return base
    whole = subject.removesuffix("-bnb-4bit")
    ends = [name.partition("@")[0].rstrip("/").split("/")[-1].lower() for name in (base, whole)]
    return subject if ends[0] == ends[1] else base


def check_made_for(card: VerbalizerCard, site: Site) -> None:
    """Check that a verbalizer was made for the site of a run.

    Raises:
        BadInput: another subject, layer or width.
    """
    made = (card.subject, card.layer, card.d_model)
    here = (site.subject, site.layer, site.d_model)
    if any(m is not None and m != h for m, h in zip(made, here, strict=True)):
        where = f"{card.subject or 'any subject'} at block {'any' if card.layer is None else card.layer}"
        options = (f" --subject {card.subject}" if card.subject else "") + (
            f" --layer {card.layer}" if card.layer is not None else ""
        )
        raise BadInput(
            f"The verbalizer {card.name!r} was made for {where} (d_model {card.d_model or 'any'}); this run reads "
            f"{site.subject} at block {site.layer} ({site.d_model}). Choose a verbalizer for this subject and site"
            + (f", or pass{options}." if options else ".")
        )


def check_texts(name: str, returned: Any, n_items: int) -> list[Verbalization]:
    """What a verbalizer returned, as verbalizations.

    Raises:
        BadInput: another number of texts than vectors, something that is not a text, a text that is too long or holds
            control characters.
    """
    if not isinstance(returned, Sequence) or isinstance(returned, str) or len(returned) != n_items:
        listed = isinstance(returned, Sequence) and not isinstance(returned, str)
        found = f"{len(returned)} texts" if listed else f"a {type(returned).__name__}"
        raise BadInput(
            f"The verbalizer {name!r} was given {n_items} vectors and returned {found}. Return a list with one text "
            "per vector, in the same order (an empty text where there is nothing to say)."
        )
    return [check_text(name, number, value) for number, value in enumerate(returned)]


def check_text(name: str, number: int | str, value: Any) -> Verbalization:
    """One returned value as a verbalization; raises BadInput as `check_texts` does."""
    found = value if isinstance(value, Verbalization) else Verbalization(value)
    for text in (found.text, *found.samples):
        _check_characters(name, number, text)
    return found if found.logprob is None else replace(found, logprob=float(found.logprob))


def _check_characters(name: str, number: int | str, text: Any) -> None:
    if not isinstance(text, str):
        raise BadInput(
            f"The verbalizer {name!r} returned a {type(text).__name__} for item {number}: "
            f"{str(text)[:60]!r}. Return str (decode token ids first)."
        )
    if len(text) > LONGEST_TEXT:
        raise BadInput(
            f"The verbalizer {name!r} returned a text of {len(text):,} characters for item {number}; at most "
            f"{LONGEST_TEXT:,} are taken. Limit the number of new tokens."
        )
    bad = next((c for c in text if is_control(c)), None)
    if bad is not None:
        raise BadInput(
            f"The verbalizer {name!r} returned the control character U+{ord(bad):04X} for item {number}: "
            f"{text[:60]!r}. Strip control characters; newlines and tabs are fine."
        )


def is_control(character: str) -> bool:
    """Control, surrogate and private-use characters, which no text needs (newline, tab and return are fine)."""
    return character not in "\n\t\r" and unicodedata.category(character) in ("Cc", "Cs", "Co")


def strip_controls(text: str) -> str:
    """A text without control characters and outer whitespace."""
    return "".join(c for c in text if not is_control(c)).strip()
