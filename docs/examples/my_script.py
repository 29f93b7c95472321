"""A verbalizer in an environment of its own: a blind file of vectors in, a file of texts out.

    python my_script.py activations.parquet verbalizations.jsonl

Needs pyarrow, and not nlabench.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq


def describe(vector: list[float]) -> str | None:
    """The text for one vector. None where there is none: scored as an empty text, and counted as a failure."""
    largest = sorted(range(len(vector)), key=lambda i: -abs(vector[i]))[:3]
    return f"a vector that is largest at coordinates {', '.join(map(str, largest))}"


def verbalize(activations: Path, texts: Path) -> None:
    with texts.open("w", encoding="utf-8") as out:
        for batch in pq.ParquetFile(activations).iter_batches(64, columns=["item_id", "activation_vector"]):
            for item in batch.to_pylist():
                line = {"item_id": item["item_id"], "text": describe(item["activation_vector"])}
                out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    verbalize(Path(sys.argv[1]), Path(sys.argv[2]))
