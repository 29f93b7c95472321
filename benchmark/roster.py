"""Which verbalizers a run feeds: those that were asked for, and the floor, ceiling and readers that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .activations import Site
from .errors import BadInput
from .nla.checkpoint import REFERENCE, find_autoencoder
from .study import Study
from .verbalizers.average_direction import wrap_average
from .verbalizers.base import TextReader, Verbalizer, VerbalizerCard
from .verbalizers.registry import load_verbalizer

#: What `run` feeds when no verbalizer is named, the reference NLA at its own subject and site only.
BUILT_IN = ("nla:reference", "nearest-text", "logit-lens", "patchscope", "prompt-reader")

#: What runs beside any verbalizer: the floor and the ceiling. The suite names readers of text beside them.
ALWAYS = ("constant", "probe-ceiling")

#: Built-in verbalizers that have no vector-blind texts worth wrapping in floors of their own.
WITHOUT_FLOORS = frozenset(
    {
        "constant", "probe-ceiling", "nearest-text", "logit-lens", "last-token", "last-four", "prompt-retrieval",
        "prompt-reader",
    }
)  # fmt: skip

#: Built-in verbalizers that write no token by token: they cost next to nothing.
QUICK = WITHOUT_FLOORS - {"prompt-reader"}

PERMUTED = "permuted-texts"


@dataclass(frozen=True)
class Roster:
    """verbalizers: what is fed, by name. permuted: floors made from another's texts, {name: (card, whose texts)}."""

    verbalizers: dict[str, Verbalizer | TextReader]
    permuted: dict[str, tuple[VerbalizerCard, str]]

    @property
    def names(self) -> list[str]:
        return [*self.verbalizers, *self.permuted]


def roster_names(asked: Sequence[str | Any], site: Site, readers: Sequence[str]) -> list[str | Any]:
    """The verbalizers to load for what was asked: built-in ones are wrapped by name, nothing twice.

    readers: those that the suite runs beside every verbalizer.
    """
    wanted = list(asked) or [name for name in BUILT_IN if name != "nla:reference" or reference_fits(site)]
    return [*[name for name in (*ALWAYS, *readers) if name not in wanted], *wanted]


def reference_fits(site: Site) -> bool:
    """Whether the reference NLA reads this site."""
    made_for = find_autoencoder(REFERENCE).av.sidecar
    return (made_for.base_checkpoint, made_for.extraction_layer_index) == (site.subject, site.layer)


def load_roster(asked: Sequence[str | Any], study: Study) -> Roster:
    """Load what was asked for (names or objects), and what belongs to it.

    Raises:
        BadInput: as `load_verbalizer`; or two verbalizers of one name.
    """
    verbalizers: dict[str, Verbalizer | TextReader] = {}
    permuted: dict[str, tuple[VerbalizerCard, str]] = {}

    def add(found: Verbalizer | TextReader) -> None:
        name = found.card.name
        if name in verbalizers:
            raise BadInput(f"Two verbalizers are named {name!r}. Give each card a name of its own.")
        verbalizers[name] = found

    for spec in roster_names(asked, study.site, study.suite.readers):
        if isinstance(spec, str) and spec.partition(":")[0] == PERMUTED:
            continue  # comes with the verbalizer whose texts it permutes
        found = load_verbalizer(spec, study)
        add(found)
        name = found.card.name
        if isinstance(found, TextReader) or name in WITHOUT_FLOORS or found.card.role == "floor":
            continue
        average = wrap_average(study, found)
        if average.card.name not in verbalizers:
            add(average)
        card = VerbalizerCard(
            name=f"{PERMUTED}:{name}",
            role="floor",
            description=f"{name}'s own texts, permuted among the items of each arm and strength.",
        )
        permuted[card.name] = (card, name)
    return Roster(verbalizers, permuted)
