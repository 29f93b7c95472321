"""A transcript: a run's items with what every verbalizer wrote of them, for tasks that measure more than scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .activations import Site
from .engine import Chunk, Engine
from .errors import BadInput
from .extraction import Activations
from .memory import halve_on_overflow
from .nla.checkpoint import find_autoencoder, hash_checkpoint, place_beside
from .nla.reconstructor import load_reconstructor
from .roster import Roster
from .store import Payload, content_key
from .study import Study
from .verbalizers.asking import Asked
from .verbalizers.base import Reconstructor
from .verbalizing import Verbalized, verbalizer_fingerprint

#: Bump when the way texts are handed to a reconstructor changes.
RECONSTRUCTION_VERSION = 1
TEXTS_PER_CHUNK = 96

#: What a task measured: per verbalizer, columns of one number (or row of numbers) per item, nan where an item was not
#: measured: {verbalizer: {column: [n_items, ...]}}.
Measured = Mapping[str, Mapping[str, NDArray[np.float64]]]

#: The key in `Measured` of what is measured of the vectors themselves, whoever verbalizes them.
OF_VECTORS = ""


@dataclass(frozen=True)
class NamedReconstructor:
    """A reconstructor with its name and with what identifies it in the store."""

    name: str
    fingerprint: str
    reconstructor: Reconstructor


@dataclass(frozen=True)
class Transcript:
    """A run's items with their texts.

    verbalized: every verbalizer's texts, in the items' order. answers: by question and name, what those that answer
    questions say where a task asks its own. evaluator: a second reconstructor, where one was given.
    """

    study: Study
    activations: Activations
    roster: Roster
    verbalized: Mapping[str, Verbalized]
    answers: Mapping[str, Mapping[str, Verbalized]]
    engine: Engine
    evaluator: NamedReconstructor | None = None
    #: Vectors of texts that were read already, by reconstructor: tasks and controls share most of their texts.
    known_vectors: dict[str, dict[str, Tensor]] = field(default_factory=dict, repr=False)

    def asked(self, question: str) -> Transcript:
        """The transcript of a task: answers to its question stand in the place of other texts."""
        return replace(self, verbalized={**self.verbalized, **self.answers.get(question, {})}, answers={})

    def texts(self, verbalizer: str) -> list[str]:
        """A verbalizer's texts, in the items' order."""
        return [said.text for said in self.verbalized[verbalizer].texts]

    @property
    def reconstructors(self) -> list[NamedReconstructor]:
        """The verbalizers that are reconstructors too."""
        found = []
        for name, verbalizer in self.roster.verbalizers.items():
            author = verbalizer.answerer if isinstance(verbalizer, Asked) else verbalizer
            if isinstance(author, Reconstructor):
                found.append(NamedReconstructor(name, verbalizer_fingerprint(verbalizer), author))
        return found

    def reconstruct(self, by: NamedReconstructor, texts: Sequence[str]) -> Tensor:
        """The vectors of texts [n_texts, d_model], float32, raw scale. Each distinct text is read once in a run.

        Raises:
            BadInput: a vector is not finite, or of another width.
        """
        known = self.known_vectors.setdefault(by.fingerprint, {})
        new = sorted({text for text in texts if text not in known})
        chunks = []
        for start in range(0, len(new), TEXTS_PER_CHUNK):
            part = new[start : start + TEXTS_PER_CHUNK]
            key = content_key(
                version=RECONSTRUCTION_VERSION, reconstructor=by.fingerprint, site=asdict(self.study.site), texts=part
            )
            chunks.append(Chunk("vectors", key, len(part), partial(_reconstruct_chunk, by, part, self.study.site)))
        payloads = self.engine.run(f"{by.name} (vectors of texts)", chunks)
        vectors = [vector for payload in payloads for vector in torch.from_numpy(payload.arrays["vectors"])]
        known.update(zip(new, vectors, strict=True))
        return torch.stack([known[text] for text in texts])


def _reconstruct_chunk(by: NamedReconstructor, texts: Sequence[str], site: Site) -> Payload:
    def reconstruct(part: Sequence[str]) -> Tensor:
        return by.reconstructor.reconstruct(part, site).float().cpu()

    vectors = halve_on_overflow(reconstruct, texts, lambda first, second: torch.cat([first, second]), "texts")
    if vectors.shape != (len(texts), site.d_model) or not torch.isfinite(vectors).all():
        raise BadInput(
            f"The reconstructor of {by.name!r} returned {list(vectors.shape)} for {len(texts)} texts"
            f"{'' if torch.isfinite(vectors).all() else ', with NaN or infinite values'}; expected one finite vector "
            f"of width {site.d_model} per text. Check its weights and dtype."
        )
    return Payload({"vectors": vectors.numpy()})


def load_evaluator(spec: str, study: Study) -> NamedReconstructor:
    """The AR of an NLA as a second reconstructor of every text: evaluator swap.

    Raises:
        BadInput: no such checkpoint, one without an AR, or one for another site.
    """
    found = find_autoencoder(spec.removeprefix("nla:"))
    if found.ar is None:
        raise BadInput(f"The evaluator {spec!r} has no AR. Give a folder with av/ and ar/ in it, or `AV,AR`.")
    reconstructor = load_reconstructor(found.ar, **place_beside(study.subject))
    reconstructor.reconstruct([""], study.site)  # one for another site says so now, before any work
    return NamedReconstructor(f"nla:{found.name}", hash_checkpoint(found.ar.folder), reconstructor)
