"""Facts about directions: what was planted is found, controls point nowhere, steering moves as far as it says."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.steering import (
    Direction,
    ablate,
    add_at_readout,
    difference_of_means,
    extract_directions,
    load_directions,
    logistic_probe,
    permuted_directions,
    random_directions,
    unit,
)
from torch import Tensor

D, N_TEXTS, N_NEUTRAL = 1024, 16, 64


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planted(size: float, n_concepts: int = 4) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Pooled states: unit noise on a common mean, and per concept a step of `size` along its own direction.

    Returns (concepts' states, neutral states, planted unit directions [n_concepts, d]).
    """
    directions = torch.linalg.qr(gaussian(D, n_concepts, seed=1))[0].T
    mean = gaussian(D, seed=2) * 5
    noise = [gaussian(N_TEXTS, D, seed=10 + i) for i in range(n_concepts)]
    pooled = {f"c{i}": mean + size * directions[i] + noise[i] for i in range(n_concepts)}
    return pooled, mean + gaussian(N_NEUTRAL, D, seed=3), directions


# -- directions of concepts -------------------------------------------------------------------------------------------


def test_a_difference_of_means_is_the_difference_of_means() -> None:
    positive, negative = torch.tensor([[1.0, 4.0], [3.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    assert difference_of_means(positive, negative).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("size", [4.0, 8.0, 16.0])
def test_the_planted_direction_is_found_as_well_as_its_noise_allows(size: float) -> None:
    # The estimate is the step and a gaussian of variance 1/n + 1/m in every one of d dimensions.
    pooled, neutral, directions = planted(size)
    found = extract_directions(pooled, neutral, layer=3, contrast="neutral")
    noise = D * (1 / N_TEXTS + 1 / N_NEUTRAL)
    for i, direction in enumerate(found.values()):
        assert float(direction.vector @ directions[i]) == pytest.approx(size / math.hypot(size, noise**0.5), abs=0.06)
        assert direction.length == pytest.approx(math.hypot(size, noise**0.5), rel=0.05)
        assert float(direction.vector.norm()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("size", [0.0, 6.0, 16.0])
def test_the_split_half_cosine_is_signal_over_signal_and_noise(size: float) -> None:
    pooled, neutral, _ = planted(size)
    found = extract_directions(pooled, neutral, layer=3, contrast="neutral")
    noise = D * (2 / N_TEXTS + 2 / N_NEUTRAL)
    for direction in found.values():
        assert direction.split_half == pytest.approx(size**2 / (size**2 + noise), abs=0.06)


def test_against_the_rest_a_concept_points_away_from_the_others() -> None:
    pooled, neutral, directions = planted(16.0)
    found = extract_directions(pooled, neutral, layer=3)
    share = N_TEXTS / (3 * N_TEXTS + N_NEUTRAL)  # of another concept's texts among the rest
    for i, direction in enumerate(found.values()):
        raw = direction.vector * direction.length
        assert float(raw @ directions[i]) == pytest.approx(16, abs=1)
        assert float(raw @ directions[(i + 1) % 4]) == pytest.approx(-16 * share, abs=1)
        assert (direction.contrast, direction.method, direction.layer) == ("rest", "difference_of_means", 3)


def test_what_all_concept_texts_share_is_no_part_of_a_direction_against_the_rest() -> None:
    # "A text with content" is most of a direction against neutral alone; against the rest it nearly goes away.
    pooled, neutral, directions = planted(8.0)
    pooled = {name: states + 16 * directions[0] for name, states in list(pooled.items())[1:]}
    neutral = neutral[:4]
    shared = {
        contrast: extract_directions(pooled, neutral, layer=3, contrast=contrast)["c1"].vector @ directions[0]
        for contrast in ("neutral", "rest")
    }
    assert float(shared["neutral"]) > 2 * abs(float(shared["rest"]))


def test_against_its_opposite_a_concept_points_away_from_it() -> None:
    pooled, neutral, directions = planted(16.0, 2)
    opposites = {"c0": "c1", "c1": "c0"}
    found = extract_directions(pooled, neutral, layer=3, contrast="opposite", opposites=opposites)
    axis = unit(directions[0] - directions[1])
    assert float(found["c0"].vector @ axis) > 0.85
    assert torch.allclose(found["c0"].vector, -found["c1"].vector, atol=1e-6)


@pytest.mark.parametrize("opposite", [None, "elsewhere"])
def test_a_concept_without_an_opposite_is_named(opposite: str | None) -> None:
    pooled, neutral, _ = planted(4.0, 2)
    with pytest.raises(BadInput, match=r"'c1' has no opposite among the concepts of this run. Choose the contrast"):
        extract_directions(pooled, neutral, layer=0, contrast="opposite", opposites={"c0": "c1", "c1": opposite})


def test_a_logistic_probe_finds_the_planted_direction() -> None:
    pooled, neutral, directions = planted(16.0)
    found = extract_directions(pooled, neutral, layer=3, method="logistic_probe", contrast="neutral", n_splits=2)
    for i, direction in enumerate(found.values()):
        assert float(direction.vector @ directions[i]) > 0.8
        assert direction.method == "logistic_probe"


def test_a_probe_is_in_the_streams_own_coordinates() -> None:
    # Stretching a coordinate shrinks the normal there: the probe's decisions are the same in either unit.
    pooled, neutral, _ = planted(8.0, 1)
    stretch = torch.logspace(-1, 1, D)
    plain = logistic_probe(pooled["c0"], neutral)
    stretched = logistic_probe(pooled["c0"] * stretch, neutral * stretch)
    assert torch.allclose(unit(stretched * stretch), unit(plain), atol=1e-4)


def test_a_probe_ignores_a_loud_coordinate_that_tells_nothing() -> None:
    pooled, neutral, directions = planted(8.0, 1)
    loud = unit(gaussian(D, seed=9))
    positive = pooled["c0"] + 100 * gaussian(N_TEXTS, 1, seed=20) * loud
    negative = neutral + 100 * gaussian(N_NEUTRAL, 1, seed=21) * loud
    probe = unit(logistic_probe(positive, negative))
    means = unit(difference_of_means(positive, negative))
    assert abs(float(probe @ loud)) < abs(float(means @ loud)) / 2
    assert float(probe @ directions[0]) > float(means @ directions[0])


def test_directions_do_not_depend_on_anything_but_texts_and_seed() -> None:
    pooled, neutral, _ = planted(4.0)
    first, second, third = (extract_directions(pooled, neutral, layer=3, seed=seed) for seed in (0, 0, 1))
    for name in pooled:
        assert torch.equal(first[name].vector, second[name].vector)
        assert first[name].split_half == second[name].split_half
        assert torch.equal(first[name].vector, third[name].vector)  # the seed halves the texts, nothing else
        assert first[name].split_half != third[name].split_half


# -- directions that mean nothing -------------------------------------------------------------------------------------


def test_permuted_directions_point_at_no_concept_on_average() -> None:
    pooled, neutral, directions = planted(16.0)
    cosines = permuted_directions(pooled, neutral, 200, seed=0) @ directions.T
    error = cosines.std(0) / 200**0.5
    assert (cosines.mean(0).abs() < 4 * error).all()
    assert cosines.abs().mean() < 0.3
    found = extract_directions(pooled, neutral, layer=3)
    assert all(float(d.vector @ directions[i]) > 0.8 for i, d in enumerate(found.values()))


def test_permuted_directions_move_within_the_streams_own_covariance() -> None:
    pooled, neutral, _ = planted(0.0)
    axis = unit(gaussian(D, seed=30))
    pooled = {
        name: states + 20 * gaussian(len(states), 1, seed=40 + i) * axis
        for i, (name, states) in enumerate(pooled.items())
    }
    neutral = neutral + 20 * gaussian(N_NEUTRAL, 1, seed=50) * axis
    permuted, random = permuted_directions(pooled, neutral, 50, seed=0), random_directions(D, 50, seed=0)
    assert (permuted @ axis).abs().mean() > 5 * (random @ axis).abs().mean()
    centred = torch.cat([*pooled.values(), neutral])
    centred = centred - centred.mean(0)
    span = torch.linalg.svd(centred, full_matrices=False)[2][: len(centred) - 1]
    assert torch.allclose((permuted @ span.T).norm(dim=1), torch.ones(50), atol=1e-3)
    assert ((random @ span.T).norm(dim=1) < 0.5).all()


def test_permuted_directions_are_unit_drawn_apart_and_repeatable() -> None:
    pooled, neutral, _ = planted(4.0)
    draws = permuted_directions(pooled, neutral, 8, seed=0)
    assert torch.allclose(draws.norm(dim=1), torch.ones(8), atol=1e-5)
    assert torch.equal(draws, permuted_directions(pooled, neutral, 8, seed=0))
    assert torch.equal(draws[:3], permuted_directions(pooled, neutral, 3, seed=0))  # more draws keep the first ones
    assert not torch.equal(draws, permuted_directions(pooled, neutral, 8, seed=1))
    assert (draws @ draws.T - torch.eye(8)).abs().max() < 0.9


@given(st.integers(2, 800), st.integers(1, 20), st.integers(0, 1000))
def test_random_directions_are_unit(d_model: int, n_draws: int, seed: int) -> None:
    draws = random_directions(d_model, n_draws, seed=seed)
    assert draws.shape == (n_draws, d_model)
    assert draws.dtype == torch.float32
    assert torch.allclose(draws.norm(dim=1), torch.ones(n_draws), atol=1e-5)


def test_random_directions_are_isotropic() -> None:
    draws = random_directions(64, 20_000, seed=0)
    assert torch.allclose(draws.T @ draws / 20_000, torch.eye(64) / 64, atol=1e-3)
    assert draws.mean(0).abs().max() < 5 / (64 * 20_000) ** 0.5


@pytest.mark.parametrize("vector", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_a_direction_that_is_zero_or_not_finite_is_refused(vector: list[float]) -> None:
    with pytest.raises(BadInput, match="zero or not finite"):
        unit(torch.tensor([[1.0, 0.0], vector]))


# -- adding and ablating ----------------------------------------------------------------------------------------------


def _vectors(n: int, d: int) -> st.SearchStrategy[np.ndarray]:
    entries = st.floats(-1000, 1000, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
    return arrays(np.float32, (n, d), elements=entries).filter(lambda a: bool((np.abs(a).max(-1) > 0).all()))


@given(_vectors(4, 6), _vectors(4, 6), st.floats(0, 5))
def test_the_displacement_at_the_readout_is_r_times_the_items_own_norm(
    states: np.ndarray, towards: np.ndarray, r: float
) -> None:
    h, v = torch.from_numpy(states).double(), unit(torch.from_numpy(towards).double())
    shift = add_at_readout(h, v, r) - h
    assert torch.allclose(shift.norm(dim=-1), r * h.norm(dim=-1), rtol=1e-9, atol=1e-9 * float(h.norm()))
    assert torch.allclose(shift, shift.norm(dim=-1, keepdim=True) * v, atol=1e-9 * float(h.norm()) * (1 + r))


def test_every_item_can_have_its_own_strength() -> None:
    states, directions = (
        gaussian(3, 64, seed=0) * torch.tensor([[1.0], [10.0], [100.0]]),
        random_directions(64, 3, seed=1),
    )
    strengths = torch.tensor([0.0, 0.5, 2.0])
    shift = add_at_readout(states, directions, strengths) - states
    assert torch.allclose(shift.norm(dim=-1) / states.norm(dim=-1), strengths, atol=1e-5)
    assert torch.equal(add_at_readout(states, directions, 0.0), states)


@given(_vectors(3, 5), _vectors(1, 5))
def test_ablation_removes_the_component_and_nothing_else(states: np.ndarray, towards: np.ndarray) -> None:
    h, v = torch.from_numpy(states).double(), unit(torch.from_numpy(towards).double())[0]
    left = ablate(h, v)
    scale = float(h.norm())
    assert (left @ v).abs().max() <= 1e-9 * scale
    assert torch.allclose(h - left, (h @ v)[:, None] * v, atol=1e-9 * scale)
    assert torch.allclose(ablate(left, v), left, atol=1e-9 * scale)


def test_ablation_works_on_whole_streams() -> None:
    states, direction = gaussian(2, 7, 64, seed=0), random_directions(64, 1, seed=1)[0]
    assert ablate(states, direction).shape == (2, 7, 64)
    assert torch.allclose(ablate(states, direction)[1, 3], ablate(states[1, 3], direction), atol=1e-6)


# -- directions from a file -------------------------------------------------------------------------------------------

VECTOR, STACK = gaussian(16, seed=0) * 9, gaussian(5, 16, seed=1)


def loaded(file: Path, *concepts: str) -> dict[str, Direction]:
    return load_directions(file, list(concepts), 3, 16)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_file_of_vectors_gives_unit_directions(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"directions.{suffix}"
    tensors = {"french": VECTOR, "code": STACK, "spare": torch.zeros(2)}
    safetensors.torch.save_file(tensors, file) if suffix == "safetensors" else torch.save(tensors, file)
    found = loaded(file, "code", "french")
    assert list(found) == ["code", "french"]
    assert torch.allclose(found["french"].vector, VECTOR / VECTOR.norm())
    assert torch.allclose(found["code"].vector, STACK[3] / STACK[3].norm())  # [n_layers, d_model]: the site's row
    assert (found["code"].method, found["code"].layer) == ("file", 3)
    assert math.isnan(found["code"].split_half)


@pytest.mark.parametrize(
    "tensor", [VECTOR, STACK, VECTOR.half(), VECTOR.bfloat16()], ids=["d", "layers", "f16", "bf16"]
)
def test_a_bare_tensor_is_the_only_concepts(tmp_path: Path, tensor: Tensor) -> None:
    torch.save(tensor, tmp_path / "one.pt")
    wanted = (tensor if tensor.ndim == 1 else tensor[3]).float()
    vector = loaded(tmp_path / "one.pt", "french")["french"].vector
    assert vector.dtype == torch.float32
    assert torch.allclose(vector, wanted / wanted.norm())
    with pytest.raises(BadInput, match="no direction for 'code'"):
        loaded(tmp_path / "one.pt", "french", "code")


class _Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("how", ["bare pickle", "torch.save", "inside a mapping"])
def test_a_malicious_pickle_is_refused_and_never_run(tmp_path: Path, how: str) -> None:
    marker, file = tmp_path / "was-run", tmp_path / "directions.pt"
    evil = _Malicious(marker)
    if how == "bare pickle":
        file.write_bytes(pickle.dumps(evil, protocol=2))
    else:
        torch.save({"french": VECTOR, "spare": evil} if how == "inside a mapping" else evil, file)
    with pytest.raises(BadInput, match=r"cannot be read as tensors: .*weights_only"):
        loaded(file, "french")
    assert not marker.exists()
    if how == "bare pickle":
        pickle.loads(file.read_bytes())
        assert marker.exists()  # it would have run


@pytest.mark.parametrize("tensor", [torch.ones(15), torch.ones(3, 16), torch.ones(2, 5, 16), torch.ones(5, 15)])
def test_a_shape_that_does_not_fit_is_named_with_what_would(tmp_path: Path, tensor: Tensor) -> None:
    safetensors.torch.save_file({"french": tensor}, tmp_path / "f.safetensors")
    shape = str(list(tensor.shape)).replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(BadInput, match=rf"'french' in .* has shape {shape}; expected \[16\], or \[n_blocks, 16\]"):
        loaded(tmp_path / "f.safetensors", "french")


def test_a_missing_concept_is_named_with_what_is_there(tmp_path: Path) -> None:
    safetensors.torch.save_file({"french": VECTOR, "code": VECTOR.clone()}, tmp_path / "f.safetensors")
    with pytest.raises(BadInput, match=r"no direction for 'anger'; it holds (code, french|french, code)"):
        loaded(tmp_path / "f.safetensors", "french", "anger")


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_a_vector_that_is_no_direction_is_named(tmp_path: Path, bad: float) -> None:
    safetensors.torch.save_file({"french": VECTOR * bad}, tmp_path / "f.safetensors")
    with pytest.raises(BadInput, match=r"'french' in .* is zero or not finite"):
        loaded(tmp_path / "f.safetensors", "french")


@pytest.mark.parametrize("content", [[VECTOR], {"french": [1.0] * 16}, {3: "x"}, "french"], ids=repr)
def test_a_file_of_anything_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "f.pt")
    with pytest.raises(BadInput, match="expected a mapping of concept names to tensors"):
        loaded(tmp_path / "f.pt", "french")


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"not tensors", b"PK\x03\x04broken", b"cos\xe9\nx", b"J\x01", b"h\x05."]
)
def test_bytes_that_are_no_tensors_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"f.{suffix}"
    file.write_bytes(content)
    with pytest.raises(BadInput, match="cannot be read as tensors"):
        loaded(file, "french")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"There is no file of directions at .*nowhere\.pt"):
        loaded(tmp_path / "nowhere.pt", "french")
