"""The texts that a reconstructor is given in place of the verbalizer's own: what a high figure has to beat."""

from __future__ import annotations

from .roster import PERMUTED
from .transcript import NamedReconstructor, Transcript

#: What a control says of an item, by control.
MEANINGS = {
    "constant_text": "one fixed text, of every item",
    "average_direction": "the verbalizer's text for the mean neutral activation, of every item",
    "other_items_text": "the verbalizer's own texts, dealt out again among the items of the arm and strength",
}


def control_texts(transcript: Transcript, by: NamedReconstructor) -> dict[str, list[str]]:
    """Per control, the text of every item. A control whose verbalizer did not run is left out."""
    sources = {
        "constant_text": "constant",
        "average_direction": f"average-direction:{by.name}",
        "other_items_text": f"{PERMUTED}:{by.name}",
    }
    return {control: transcript.texts(name) for control, name in sources.items() if name in transcript.verbalized}
