"""The built-in prompts, the texts that directions are made of, and lists of others' prompts.

A list of others is in the split format of the refusal_direction code: a JSON list of
{"instruction": ..., "category": ...}. The built-in requests were written for this project and are mild: a model that
was taught to refuse declines them, and an answer to one would hurt nobody.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlabench.benchmark.errors import BadInput

DATA = Path(__file__).parent / "data"

#: What the two sets of the paper are called, everywhere.
SETS = ("persona", "refusal")

FORMAT = 'expected a JSON list of {"instruction": "...", "category": "..." or null}'


@dataclass(frozen=True)
class Request:
    """One user message, and what kind of request its list says it is."""

    instruction: str
    category: str | None = None


@dataclass(frozen=True)
class Trait:
    """Two opposite system prompts in several wordings, and the questions that are answered under each."""

    shown: tuple[str, ...]
    opposite: tuple[str, ...]
    questions: tuple[str, ...]


def load_requests(file: Path) -> list[Request]:
    """Read a list of requests in the refusal_direction split format.

    Raises:
        BadInput: no such file, not JSON, not a list of such objects, or empty.
    """
    found = _load_json(file)
    if not isinstance(found, list) or not found:
        kind = "an empty list" if found == [] else f"a {type(found).__name__}"
        raise BadInput(f"{file} holds {kind}; {FORMAT}. The built-in list {DATA / 'refusal.json'} is an example.")
    requests = []
    for number, entry in enumerate(found):
        instruction = entry.get("instruction") if isinstance(entry, dict) else None
        if not isinstance(instruction, str) or not instruction.strip():
            raise BadInput(
                f"Entry {number} of {file} is {json.dumps(entry)[:120]}; {FORMAT}. Give every entry the text of its "
                "request under `instruction`."
            )
        category = entry.get("category")
        if category is not None and not isinstance(category, str):
            raise BadInput(
                f"Entry {number} of {file} has the category {json.dumps(category)[:80]}; expected a text or null. "
                "Leave `category` out, or give it as a text."
            )
        requests.append(Request(instruction, category))
    return requests


def load_built_in(name: str) -> list[Request]:
    """One of the lists in data/: `persona`, `refusal`, `mild` (more of the kind of `refusal`), `declined`, `harmless`.

    Directions are made of the last two only.
    """
    return load_requests(DATA / f"{name}.json")


def load_rephrased() -> list[list[str]]:
    """For each request of the built-in `refusal` list, other wordings of it."""
    found: list[list[str]] = _load_json(DATA / "rephrased.json")
    return found


def load_trait() -> Trait:
    """The system prompts and questions that the persona direction is made of."""
    found: Any = _load_json(DATA / "trait.json")
    return Trait(tuple(found["shown"]), tuple(found["opposite"]), tuple(found["questions"]))


def _load_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"There is no list of prompts at {str(file)!r}; {FORMAT}. Give a file that exists.") from error
    except (json.JSONDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{file} cannot be read as JSON ({reason}); {FORMAT}. Mend the file.") from error
