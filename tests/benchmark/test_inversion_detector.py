"""The inversion ratio as a detector: known answers on a tiny subject, whose whole vocabulary is tried."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nlabench.benchmark.activations import ItemSpec, Readout, Site
from nlabench.benchmark.engine import LocalEngine, Progress
from nlabench.benchmark.inversion_detector import _scan_chunk, can_scan, log_ratio, measure_inversion
from nlabench.benchmark.steering import add_at_readout, random_directions
from nlabench.benchmark.store import Store
from nlabench.benchmark.subject import Subject
from torch import Tensor

SITE = 2
TEXTS = {"p0": (5, 17, 9, 30, 11, 4), "p1": (8, 3, 21, 6, 12, 19, 7), "c0/natural/0": (14, 2, 25, 31, 10)}
READOUTS = {name: Readout(name, 4, "function", "the") for name in TEXTS}


@pytest.fixture(params=["llama", "gemma2", "gpt2"])
def subject(request: pytest.FixtureRequest, tiny: Callable[[str], Subject]) -> Subject:
    return tiny(request.param)


def make_study(subject: Subject) -> Any:
    """What of a study is used: prompts p0 and p1 after a preamble, and a natural text."""
    texts = {name: SimpleNamespace(text=SimpleNamespace(id=name), ids=ids) for name, ids in TEXTS.items()}
    return SimpleNamespace(
        subject=subject,
        site=Site(subject.name, SITE, subject.d_model),
        preamble=subject.make_prefix([1, 20, 13], SITE),
        texts=texts,
        readout_prompts=(texts["p0"], texts["p1"]),
        reading_key=lambda: {"subject": subject.fingerprint},
    )


def read(study: Any, name: str, token: int | None = None) -> Tensor:
    """The state at a text's readout [d_model], or with another token in its place."""
    index = READOUTS[name].index
    ids = [*TEXTS[name][:index], TEXTS[name][index] if token is None else token]
    tokens = torch.tensor([ids])
    states = study.subject.run(tokens, torch.ones_like(tokens), capture=[SITE], prefix=study.preamble)[SITE]
    return states[0, -1].float()


def measure(study: Any, items: list[tuple[str, Tensor]], folder: Path, said: list[Progress] | None = None) -> Any:
    engine = LocalEngine(Store(folder), (said if said is not None else []).append)
    specs = [ItemSpec("neutral", READOUTS[name]) for name, _ in items]
    return measure_inversion(study, specs, torch.stack([vector for _, vector in items]), engine)


def test_an_unmoved_state_has_a_large_ratio_and_a_moved_one_a_smaller_the_farther_it_was_moved(
    subject: Subject, tmp_path: Path
) -> None:
    study = make_study(subject)
    away = random_directions(subject.d_model, 1, seed=0)
    items = [(name, read(study, name)) for name in ("p0", "p1")]
    for r in (0.01, 0.1, 1.0):
        items += [(name, add_at_readout(read(study, name)[None], away, r)[0]) for name in ("p0", "p1")]
    found = measure(study, items, tmp_path).reshape(4, 2)
    assert (found[0] < -math.log(1000)).all()
    assert (np.diff(found, axis=0) > 0).all()
    assert (found <= 0).all()


def test_the_nearest_of_an_item_that_was_moved_at_the_readout_is_no_farther_than_its_shift(subject: Subject) -> None:
    study, state = make_study(subject), read(make_study(subject), "p0")
    moved = torch.stack(
        [add_at_readout(state[None], d[None], 0.2)[0] for d in random_directions(subject.d_model, 8, seed=1)]
    )
    found = _scan_chunk(subject, study.preamble, TEXTS["p0"][:4], SITE, torch.cat([state[None], moved]))
    unmoved, *others = found.arrays["distances"]
    shift = 0.2 * float(state.norm())
    for nearest, second in others:
        assert nearest <= shift * (1 + 1e-4)
        assert abs(second - unmoved[1]) <= shift * (1 + 1e-4)


def test_a_state_that_was_moved_to_where_another_token_leads_looks_unmoved(subject: Subject, tmp_path: Path) -> None:
    """What is detected is that no token gives the state, and not that it is another one than the prompt's."""
    study = make_study(subject)
    here, elsewhere = read(study, "p0"), read(study, "p0", token=33)
    found = measure(study, [("p0", elsewhere), ("p0", (here + elsewhere) / 2)], tmp_path)
    assert found[0] < -math.log(1000)
    assert found[1] > -math.log(10)


def test_a_scan_serves_all_items_of_a_prompt_and_is_kept(subject: Subject, tmp_path: Path) -> None:
    study, said = make_study(subject), list[Progress]()
    items = [(name, read(study, name) * scale) for scale in (1.0, 1.1, 1.2) for name in ("p0", "p1")]
    first = measure(study, items, tmp_path, said)
    assert (said[-1].fresh, said[-1].total) == (2 * subject.vocab_size, 2 * subject.vocab_size)
    again = measure(study, items, tmp_path, said)
    assert said[-1].fresh == 0
    assert np.array_equal(first, again)
    for number, item in enumerate(items):  # and no value hangs on the items that share the scan
        alone = measure(study, [item], tmp_path / "alone")
        # float32 rounds where the nearest is met: there the ratio is noise on either side of a thousand times
        assert alone[0] == pytest.approx(first[number], abs=1e-3 if first[number] > -3 else 3)


def test_a_natural_text_would_need_a_scan_of_its_own_and_has_no_value(subject: Subject, tmp_path: Path) -> None:
    study = make_study(subject)
    found = measure(study, [(name, read(study, name)) for name in TEXTS], tmp_path)
    assert np.isfinite(found).tolist() == [True, True, False]


def test_an_exact_hit_is_as_near_as_float32_can_tell() -> None:
    vectors = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    found = log_ratio(np.array([[0.0, 5.0], [0.0, 0.0]]), vectors)
    assert found == pytest.approx([math.log(2**23), 0.0])


def test_a_subject_in_bfloat16_is_not_scanned(tiny: Callable[[str], Subject]) -> None:
    subject: Any = SimpleNamespace(dtype=torch.bfloat16)
    assert not can_scan(SimpleNamespace(subject=subject))  # type: ignore[arg-type]
    assert can_scan(make_study(tiny("llama")))
