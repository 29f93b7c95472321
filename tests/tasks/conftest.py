"""A small study of the real subject with every arm, read once for the tests of tasks that measure activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from nlabench.benchmark import arms
from nlabench.benchmark.activations import ActivationBatch, ItemSpec, Site
from nlabench.benchmark.assets import cache_folder
from nlabench.benchmark.concepts import ConceptPack
from nlabench.benchmark.engine import Engine, LocalEngine
from nlabench.benchmark.extraction import Activations, make_activations
from nlabench.benchmark.roster import Roster
from nlabench.benchmark.store import Store, array_fingerprint
from nlabench.benchmark.study import Study, complete_study, sketch_study
from nlabench.benchmark.subject import Subject
from nlabench.benchmark.suites import QUICK, Suite
from nlabench.benchmark.transcript import Transcript
from nlabench.benchmark.verbalizers.base import Verbalization, VerbalizerCard
from nlabench.benchmark.verbalizing import Verbalized
from torch import Tensor

_PROBE = torch.arange(1.0, 577.0)

SMALL = Suite(
    **{
        **QUICK.model_dump(), "name": "small", "n_concepts": 4, "natural_per_concept": 3, "readout_prompts": 4,
        "prompts_per_concept": 4, "strengths": (0.3, 1.0), "upstream_strengths": (0.3,), "mid_per_concept": 1,
        "mid_strengths": (0.3,), "gaussian_items": 4,
    }
)  # fmt: skip


@pytest.fixture(scope="session")
def engine() -> Engine:
    return LocalEngine(Store(cache_folder() / "store", lambda _: None))


@pytest.fixture(scope="session")
def small_study(subject: Subject, thin_pack: ConceptPack, engine: Engine) -> Study:
    return complete_study(sketch_study(subject, thin_pack, SMALL), engine)


@pytest.fixture(scope="session")
def small_activations(small_study: Study, engine: Engine) -> Activations:
    """Every arm at the readout, upstream too where it is steered or permuted, and the items with text to follow."""
    study = small_study
    items: list[ItemSpec] = arms.natural_items(study, "function") + arms.neutral_items(study, "function")
    items += arms.matched_items(study, "readout", "function") + arms.graft_concept_items(study)
    items += arms.control_grid(study, "graft", "readout") + arms.gaussian_items(study) + arms.mid_items(study)
    for injection in ("readout", "upstream"):
        items += arms.steered_grid(study, injection)
        items += arms.control_grid(study, "permuted", injection) + arms.control_grid(study, "random", injection)
    return make_activations(study, dict.fromkeys(items), engine)


class Coder:
    """A verbalizer whose text is a code for its vector, with a reconstructor that is told what to make of it."""

    def __init__(self, name: str, decode: Callable[[Tensor], Tensor] = lambda vector: vector) -> None:
        self.card = VerbalizerCard(name=name, settings={"code": array_fingerprint(decode(_PROBE).numpy())})
        self.decode = decode
        self.book: dict[str, Tensor] = {}

    def verbalize(self, batch: ActivationBatch) -> list[str]:
        texts = [array_fingerprint(vector.numpy()) for vector in batch.vectors]
        self.book.update(zip(texts, batch.vectors, strict=True))
        return texts

    def reconstruct(self, texts: Sequence[str], site: Site) -> Tensor:
        return torch.stack([self.decode(self.book[text]) for text in texts])


@pytest.fixture
def transcribe(small_study: Study, small_activations: Activations, tmp_path: Any) -> Callable[..., Transcript]:
    """A transcript of verbalizers (objects with `card` and `verbalize`) over all items, with a store of its own."""

    def make(*verbalizers: Any, others: Mapping[str, Sequence[str]] = {}) -> Transcript:
        batch = ActivationBatch(small_activations.vectors, small_study.site)
        said = {v.card.name: list(v.verbalize(batch)) for v in verbalizers} | {n: list(t) for n, t in others.items()}
        texts = {
            name: Verbalized([Verbalization(text) for text in found], 1.0, len(found), None, None)
            for name, found in said.items()
        }
        roster = Roster({v.card.name: v for v in verbalizers}, {})
        engine = LocalEngine(Store(tmp_path / "store"))
        return Transcript(small_study, small_activations, roster, texts, {}, engine)

    return make
