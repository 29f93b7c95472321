"""A subject that is split: its states are the whole one's, and what lies past the site stays where it is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nlabench.benchmark import behaviour
from nlabench.benchmark.decoding import Sampling, decode
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.injection import VectorInjection, inject_vectors
from nlabench.benchmark.inversion import invert
from nlabench.benchmark.inversion_guided import invert_guided
from nlabench.benchmark.inversion_scan import Scanner
from nlabench.benchmark.loading import load_subject
from nlabench.benchmark.reading import read_states
from nlabench.benchmark.restart import restart_upstream
from nlabench.benchmark.round_trip import put_back
from nlabench.benchmark.subject import Prefix, Subject, pad_batch
from torch import Tensor

from .pretended_devices import CPU, FIRST, SECOND, PretendedDevices, split_in_two

FIRST_IDS, ROWS = [3, 41, 17, 29, 8, 33, 52], [[11, 4, 50, 7], [9, 23], [44, 6, 15]]

Tiny = Callable[[str], Subject]


def everything(subject: Subject, *, scanned: bool = False) -> dict[str, Any]:
    """What the benchmark asks of a subject, by name; tensors on the CPU."""
    last = subject.n_blocks - 1
    prefix = subject.make_prefix(FIRST_IDS)
    vectors = torch.randn(3, subject.d_model, generator=torch.Generator().manual_seed(5))
    found: dict[str, Any] = {"keys": torch.stack([keys.cpu() for keys in prefix.keys])}
    states = list(read_states(subject, prefix, ROWS, range(subject.n_blocks)))
    found["states"] = {(i, layer): stream for i, layers in states for layer, stream in layers.items()}
    for injection in range(subject.n_blocks - 1):
        restarted = restart_upstream(subject, prefix, ROWS[0], vectors, injection, last)
        found[f"restart {injection}"] = restarted
    text = list(range(3, 16))
    for layer in (0, last - 1, last):
        found[f"round trip {layer}"] = put_back(subject, prefix, text, 2, layer, vectors[:1], vectors[1:])
    found["logits"] = subject.unembed(vectors).cpu()
    shift = vectors.to(subject.device)
    for block in range(subject.n_blocks):
        injected = inject_vectors(VectorInjection("add_norm_matched", block, "state"), vectors, [-1])
        found[f"answers {block}"] = decode(subject, ROWS, max_new_tokens=5, prefix=prefix, edits=injected)
    found["samples"] = decode(subject, ROWS, max_new_tokens=5, sampling=Sampling(0.7, (1, 2, 3)), stop_text="cat")
    study: Any = SimpleNamespace(subject=subject, injection_layer=last)
    found["gate"] = behaviour._answer_at_once(study, [*FIRST_IDS, 4], prefix, list(shift.cpu())).arrays["loss"]
    if scanned:
        scanner = Scanner(subject, last - 1)
        natural = dict(states)[0][last - 1]
        found["inverted"] = invert(scanner, {"natural": natural}, given=FIRST_IDS)["natural"].tokens
        found["guided"] = [g.position.token for g in invert_guided(scanner, natural)]
    return found


def assert_equal(found: Any, wanted: Any, what: str = "") -> None:
    """To the last bit."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert_equal(found[key], wanted[key], f"{what} {key}")
    elif isinstance(wanted, tuple | list) and any(isinstance(part, Tensor) for part in wanted):
        for one, other in zip(found, wanted, strict=True):
            assert_equal(one, other, what)
    elif isinstance(wanted, Tensor):
        assert torch.equal(found, wanted), what
    else:
        assert str(found) == str(wanted), what  # as text: a loss may be nan


# -- two devices ------------------------------------------------------------------------------------------------------


def test_a_subject_on_two_devices_is_the_whole_one_and_nothing_mixes_them(any_tiny: Subject, tiny: Any) -> None:
    family = any_tiny.fingerprint.removeprefix("tiny:")
    wanted = everything(any_tiny, scanned=family == "llama")
    fresh = tiny.__wrapped__(family)  # accelerate's hooks stay on a model
    with PretendedDevices():
        split = split_in_two(fresh.model, fresh.tokenizer)
        assert [split.device_of(block) for block in range(4)] == [FIRST, FIRST, SECOND, SECOND]
        assert (split.device, split.unembed(torch.ones(1, 32)).device) == (FIRST, FIRST)
        streams = split.run(*pad_batch(ROWS), capture=[1, 2])
        assert [streams[layer].device for layer in (1, 2)] == [FIRST, SECOND]
        assert restart_upstream(split, split.make_prefix([3]), [4, 5], torch.ones(1, 32), 1, 3).device == CPU
        assert_equal(everything(split, scanned=family == "llama"), wanted)


def test_a_prefix_that_was_laid_out_in_another_way_is_moved(tiny: Any) -> None:
    plain, fresh = tiny("llama"), tiny.__wrapped__("llama")
    wanted = plain.run(*pad_batch(ROWS), capture=[3], prefix=plain.make_prefix(FIRST_IDS))[3]
    with PretendedDevices():
        split = split_in_two(fresh.model, fresh.tokenizer)
        there = split.make_prefix(FIRST_IDS)
        assert [keys.device for keys in there.keys] == [FIRST, FIRST, SECOND, SECOND]
        assert there.on([split.device_of(block) for block in range(4)]) is there
        # As it comes out of another process, whose GPUs were others.
        away = Prefix(there.ids, *(tuple(t.to(FIRST) for t in part) for part in (there.keys, there.values)))
        assert torch.equal(split.run(*pad_batch(ROWS), capture=[3], prefix=away)[3].cpu(), wanted)


def test_pretended_devices_that_meet_are_an_error() -> None:
    """Without this, the tests above would prove nothing."""
    with PretendedDevices():
        here, there = torch.ones(2, device="cuda:0"), torch.ones(2).to("cuda:1")
        with pytest.raises(RuntimeError, match="add was given tensors on cuda:0, cuda:1"):
            here + there
        with pytest.raises(RuntimeError, match="linear was given tensors on cpu, cuda:1"):
            torch.nn.functional.linear(there, torch.ones(3, 2))
        with pytest.raises(RuntimeError, match="__getitem__ was given"):
            here[torch.tensor([0]).to("cuda:1")]
        assert (here + there.to(here)).device == FIRST


# -- accelerate, for real: blocks that wait on disk -------------------------------------------------------------------

CHECKPOINTS = ["llama", "qwen2", "gemma2", "gemma3", "gpt2", "gpt-neox"]


def lay_out(subject: Subject, on_disk: set[int]) -> dict[str, int | str]:
    """A device map: some of the blocks on disk, all the rest in the CPU's memory."""
    names = {module: name for name, module in subject.model.named_modules()}
    path = names[subject.blocks]
    found: dict[str, int | str] = {f"{path}.{n}": "disk" for n in on_disk}
    owners = [f"{path}."]
    for name, _ in subject.model.named_parameters(remove_duplicate=False):
        owner = next((f"{path}.{n}" for n in range(subject.n_blocks) if name.startswith(f"{path}.{n}.")), None)
        found.setdefault(owner or name.rpartition(".")[0], "cpu")
    for name, module in subject.model.named_modules():
        if list(module.buffers(recurse=False)) and not name.startswith(tuple(owners)):
            found.setdefault(name, "cpu")
    return found


def watch_disk(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The blocks of which weights have been read from disk, from now on."""
    read: set[int] = set()

    def watch(number: int, hook: Any) -> None:
        real = hook.pre_forward

        def pre_forward(module: Any, *args: Any, **kwargs: Any) -> Any:
            read.add(number)
            return real(module, *args, **kwargs)

        monkeypatch.setattr(hook, "pre_forward", pre_forward)

    for number, block in enumerate(subject.blocks):
        for module in block.modules():
            hook = getattr(module, "_hf_hook", None)
            if hook is not None and hook.offload:
                watch(number, hook)
    return read


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_a_subject_with_blocks_on_disk_is_the_whole_one(tiny: Tiny, tmp_path: Path, family: str) -> None:
    tiny(family).model.save_pretrained(tmp_path)
    tiny(family).tokenizer.save_pretrained(tmp_path)
    whole = load_subject(str(tmp_path), device="cpu")
    layout = lay_out(whole, {2, 3})
    split = load_subject(str(tmp_path), device_map=layout)
    assert split.is_split
    assert not whole.is_split
    assert all(parameter.is_meta for parameter in split.blocks[3].parameters())
    assert (split.device, split.dtype, split.fingerprint) == (whole.device, whole.dtype, whole.fingerprint)
    scanned = family == "llama"
    assert_equal(everything(split, scanned=scanned), everything(whole, scanned=scanned))
    assert_equal(everything(split), everything(whole))  # and again: the hooks are where they were


def test_what_lies_past_the_site_is_not_read_from_disk(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny("llama").model.save_pretrained(tmp_path)
    tiny("llama").tokenizer.save_pretrained(tmp_path)
    layout = lay_out(tiny("llama"), {1, 2, 3})
    split = load_subject(str(tmp_path), device_map=layout)
    read = watch_disk(split, monkeypatch)
    prefix = split.make_prefix(FIRST_IDS, 0)
    split.run(*pad_batch(ROWS), capture=[0], prefix=prefix)
    assert read == set()
    split.run(*pad_batch(ROWS), capture=[1])
    assert read == {1}
    read.clear()
    states = torch.ones(3, 4, split.d_model)
    split.run(*pad_batch(ROWS), capture=[2], enter=(1, states))
    assert read == {2}
    read.clear()
    split.unembed(states[0])
    assert read == set()


def test_the_default_subject_with_late_blocks_on_disk(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    split = load_subject(device_map=lay_out(subject, set(range(20, 30))))
    assert (split.name, split.fingerprint) == (subject.name, subject.fingerprint)
    read = watch_disk(split, monkeypatch)
    first, text = subject.encode("Notes from a long journey. "), subject.encode("The rain fell on the roof and")
    shifts = torch.randn(3, 576, generator=torch.Generator().manual_seed(1)) * 5
    found = []
    for one in (split, subject):
        prefix = one.make_prefix(first, 19)
        states = one.run(*pad_batch([text]), capture=[9, 19], prefix=prefix)
        found.append([states[9], states[19], restart_upstream(one, prefix, text, shifts, 9, 19)])
    assert_equal(*found)
    assert read == set()
    logits = [one.unembed(shifts) for one in (split, subject)]
    assert_equal(*logits)
    answers = [
        decode(one, [text], max_new_tokens=4, edits={9: lambda states, rows, prefill: states + shifts[0]})
        for one in (split, subject)
    ]
    assert answers[0] == answers[1]
    assert read == set(range(20, 30))


def test_a_map_that_lays_all_on_one_device_is_the_plain_subject(subject: Subject) -> None:
    for layout in ("auto", {"": "cpu"}):
        if layout == "auto" and torch.cuda.is_available():
            continue  # then it is laid on GPUs
        one = load_subject(device_map=layout)
        assert not one.is_split
        assert (one.name, one.fingerprint, one.dtype) == (subject.name, subject.fingerprint, torch.float32)
        assert one.recipe == dataclasses.replace(subject.recipe, device_map=layout)  # type: ignore[type-var]


# -- maps -------------------------------------------------------------------------------------------------------------


def refusal(**options: Any) -> str:
    with pytest.raises(BadInput) as raised:
        load_subject(**options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_map_may_be_a_file(subject: Subject, tmp_path: Path) -> None:
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"": "cpu"}))
    loaded = load_subject(device_map=str(file))
    assert loaded.recipe is not None
    assert loaded.recipe.device_map == {"": "cpu"}  # what is in it: another machine has no such file


def test_maps_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    assert "--device-map automatic is none of auto, balanced, and no readable JSON file" in refusal(
        device_map="automatic"
    )
    file = tmp_path / "map.json"
    for content, said in (
        ("{", "no readable JSON file"),
        ("[1]", "is an object from names of modules"),
        ("{}", "is an object from names of modules"),
        ('{"model": "gpu"}', "'gpu' is no device"),
        ('{"model": true}', "True is no device"),
        ('{"model": -1}', "-1 is no device"),
    ):
        file.write_text(content)
        assert said in refusal(device_map=str(file))
    assert "names GPU 40; this process sees" in refusal(device_map={"": 40})
    assert "could not be loaded" in refusal(device_map={"model.embed_tokens": "cpu", "model.norm": "disk"})


def test_a_device_beside_a_map_is_refused_where_it_is_another() -> None:
    assert "--device cuda:1 and --device-map" in (found := refusal(device="cuda:1", device_map={"": "cpu"}))
    assert "computes on cpu. Leave one of them out" in found


def test_a_device_that_is_not_here_is_refused() -> None:
    here = torch.cuda.device_count()
    assert f"--device cuda:{here} was asked for; torch sees {here} GPUs here" in refusal(device=f"cuda:{here}")
    assert "There is no device 'gpu'. Choose auto, cpu, cuda" in refusal(device="gpu")
