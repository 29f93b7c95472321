"""NLAs: the vector enters a prompt at its marker, and a model trained for it writes what the vector holds.

`nla:reference` is the one that ships; `nla:PATH`, `nla:AV,AR` and hub ids name others (see `find_autoencoder`). Options
follow a question mark: `nla:PATH?temperature=1&samples=4&seed=0&new_tokens=40`. Texts are greedy by default, so that
a run can be repeated to the letter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from ..activations import ActivationBatch, Site
from ..decoding import Decoded, Sampling, decode, seed_text
from ..errors import BadInput
from ..injection import VectorInjection, inject_vectors
from ..nla.checkpoint import find_autoencoder, hash_checkpoint, load_half, place_beside
from ..nla.explanation import CLOSING, read_explanation
from ..nla.reconstructor import NLAReconstructor, load_reconstructor
from ..nla.sidecar import mark_prompt
from ..placement import DeviceMap
from ..store import array_fingerprint
from ..study import Study
from ..subject import Prefix, Subject
from .base import Verbalization, VerbalizerCard, name_of_base

#: Bump when the code here changes what is written: old texts in the store are then never used.
VERSION = "1"

#: NLAs of the contract were never trained on earlier positions.
MIN_POSITION = 50


class Decoding(BaseModel):
    """How an AV writes. samples: texts per item, the first of which is scored; more than one needs a temperature.

    new_tokens: at most; by default what the sidecar says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(0.0, ge=0)
    samples: int = Field(1, ge=1)
    seed: int = 0
    new_tokens: int = Field(ge=1)


@dataclass(frozen=True)
class NLA:
    """An AV. prefix: its prompt up to the marker, run once; tail: token ids from the marker on."""

    card: VerbalizerCard
    model: Subject
    prefix: Prefix
    tail: Sequence[int]
    injection: VectorInjection
    decoding: Decoding

    def verbalize(self, batch: ActivationBatch) -> list[Verbalization]:
        edits = inject_vectors(self.injection, batch.vectors, [0])
        about = [array_fingerprint(vector.numpy()) for vector in batch.vectors]
        drawn = [
            decode(
                self.model, [self.tail] * len(batch), max_new_tokens=self.decoding.new_tokens, prefix=self.prefix,
                edits=edits, sampling=self._sampling(about, number), stop_text=CLOSING,
            )
            for number in range(self.decoding.samples)
        ]  # fmt: skip
        return [self._read(answers) for answers in zip(*drawn, strict=True)]

    def _sampling(self, about: Sequence[str], number: int) -> Sampling | None:
        if not self.decoding.temperature:
            return None
        seeds = tuple(seed_text(self.decoding.seed, vector, number) for vector in about)
        return Sampling(self.decoding.temperature, seeds)

    def _read(self, answers: Sequence[Decoded]) -> Verbalization:
        # With special tokens: a checkpoint may have made its tags special, and `Decoded.text` leaves those out.
        texts = [read_explanation(self.model.tokenizer.decode(answer.ids)) for answer in answers]
        (first, flags), *others = texts
        return Verbalization(first, answers[0].logprob, flags=flags, samples=tuple(text for text, _ in others))


@dataclass(frozen=True)
class NLAPair:
    """An AV with its AR: a verbalizer that is a reconstructor too. The AR is loaded when it is first asked."""

    verbalizer: NLA
    load_ar: Callable[[], NLAReconstructor]

    @property
    def card(self) -> VerbalizerCard:
        return self.verbalizer.card

    @cached_property
    def reconstructor(self) -> NLAReconstructor:
        return self.load_ar()

    def verbalize(self, batch: ActivationBatch) -> list[Verbalization]:
        return self.verbalizer.verbalize(batch)

    def reconstruct(self, texts: Sequence[str], site: Site) -> Tensor:
        """See `NLAReconstructor.reconstruct`."""
        return self.reconstructor.reconstruct(texts, site)


def build(study: Study, argument: str) -> NLA | NLAPair:
    subject = study.subject
    return load_nla(argument, **place_beside(subject), subject=subject.name)


def load_nla(
    spec: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    device_map: DeviceMap | None = None,
    subject: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> NLA | NLAPair:
    """The NLA that a spec names, with its options, as a verbalizer; a reconstructor too where there is an AR.

    device, dtype, device_map: as for `load_subject`. subject: the run's name of its subject, which may be the NLA's
    base under another path or revision.

    Raises:
        BadInput: see `find_autoencoder`, `read_decoding`, `load_half` and `mark_prompt`.
    """
    where, _, query = spec.partition("?")
    found = find_autoencoder(where)
    sidecar = found.av.sidecar
    decoding = read_decoding(query, sidecar.max_new_tokens)
    injection = sidecar.vector_injection()
    place: dict[str, Any] = {"device": device, "dtype": dtype, "device_map": device_map}
    model = load_half(found.av, **place, say=say)
    prompt = mark_prompt(sidecar, model.tokenizer)
    if injection.block >= 0:
        model.check_layer(injection.block)
    card = VerbalizerCard(
        name=f"nla:{found.name}" + (f"?{query}" if query else ""),
        version=VERSION,
        description=f"A natural language autoencoder: the vector enters by {injection.mode} and is put into words.",
        subject=name_of_base(sidecar.base_checkpoint, subject),
        layer=sidecar.extraction_layer_index,
        d_model=sidecar.d_model,
        min_position=MIN_POSITION,
        licence=sidecar.license,
        training_data=sidecar.training_data,
        settings={
            "weights": model.fingerprint,
            "reconstructor": hash_checkpoint(found.ar.folder) if found.ar else None,
            "prompt": sidecar.prompt_templates.av,
            "injection": {
                "mode": injection.mode, "block": injection.block, "scale": injection.scale,
                "coefficient": injection.coefficient,
            },
            "decoding": decoding.model_dump(),
        },
    )  # fmt: skip
    prefix = model.make_prefix(prompt.ids[: prompt.slot]) if prompt.slot else Prefix((), (), ())
    verbalizer = NLA(card, model, prefix, prompt.ids[prompt.slot :], injection, decoding)
    if found.ar is None:
        return verbalizer
    return NLAPair(verbalizer, partial(load_reconstructor, found.ar, **place, say=say))


def read_decoding(query: str, new_tokens: int) -> Decoding:
    """Options as in a URL's query: `temperature=1&samples=4`. new_tokens: where the query does not say.

    Raises:
        BadInput: an unknown option, a value out of range, or several samples without a temperature.
    """
    try:
        given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        decoding = Decoding.model_validate({"new_tokens": new_tokens, **given})
    except (ValidationError, ValueError) as error:
        raise BadInput(
            f"The options {query!r} cannot be used: {str(error).splitlines()[0]}. Known are "
            f"{', '.join(Decoding.model_fields)}, as in `?temperature=1&samples=4`."
        ) from error
    if decoding.samples > 1 and not decoding.temperature:
        raise BadInput(
            f"{decoding.samples} samples were asked for at temperature 0, where all would be the same. Add a "
            "temperature (`temperature=1` is what released NLAs use), or leave `samples` out."
        )
    return decoding


def check(argument: str) -> None:
    """Raises BadInput for a checkpoint that is not there, a wrong sidecar or an unknown option; loads no weights."""
    where, _, query = argument.partition("?")
    read_decoding(query, find_autoencoder(where).av.sidecar.max_new_tokens)


VERBALIZERS = {"nla": build}
CHECKS = {"nla": check}
