"""Facts about the table for the terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nlabench.benchmark.records import read_result
from nlabench.benchmark.report.headline import headline
from nlabench.benchmark.summary import summarize
from nlabench.terminal import console


def test_every_concept_that_is_left_out_has_its_reason_beside_the_count(
    write_planted_run: Callable[..., Path], say_planted: Callable[..., list[str]], tmp_path: Path
) -> None:
    result = read_result(write_planted_run(tmp_path, {"mine": say_planted(0.3)}) / "result.json")
    reasons = {
        0: "split-half cosine 0.61 < 0.7",
        1: "natural evidence is not positive",
        2: "split-half cosine 0.61 < 0.7",
    }
    concepts = [
        concept.model_copy(update={"excluded": {"readout/function": reasons[i]} if i in reasons else {}})
        for i, concept in enumerate(result.concepts)
    ]
    names = [concept.name for concept in concepts]
    cut = result.model_copy(update={"concepts": concepts})
    said = f"{names[0]}, {names[2]} (split-half cosine 0.61 < 0.7); {names[1]} (natural evidence is not positive)"
    with console.capture() as captured:
        console.print(summarize(cut))
    shown = " ".join(captured.get().split())
    assert f"{len(names) - 3} of {len(names)} concepts are in the headline; left out: {said}." in shown
    assert headline(cut)["basis"]["readout/function"]["left_out"] == said
    whole = result.model_copy(update={"concepts": [c.model_copy(update={"excluded": {}}) for c in concepts]})
    with console.capture() as captured:
        console.print(summarize(whole))
    assert f"{len(names)} of {len(names)} concepts are in the headline." in " ".join(captured.get().split())
