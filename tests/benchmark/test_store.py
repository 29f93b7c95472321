"""Facts about the store: a file is whole or absent, damage is noticed, and many processes may write at once."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes
from nlabench.benchmark.engine import Chunk, LocalEngine, Progress
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.store import Payload, Store, array_fingerprint, content_key, merge_arrays, write_atomically

PAYLOAD = Payload({"states": np.arange(600, dtype=np.float32).reshape(20, 30)}, {"texts": ["an été", "", "雨"], "n": 3})
KEY = content_key(what="a test")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, said: list[str]) -> Store:
    return Store(tmp_path / "store", said.append)


def assert_same(found: Payload | None, wanted: Payload) -> None:
    assert found is not None
    assert found.record == wanted.record
    assert found.arrays.keys() == wanted.arrays.keys()
    for name, array in wanted.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow past 4096 bytes; the test runner's own log neither, so nothing may be reported meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -- whole ------------------------------------------------------------------------------------------------------------


def test_what_is_put_is_what_is_got(store: Store) -> None:
    assert not store.has("readings", KEY)
    assert store.get("readings", KEY) is None
    store.put("readings", KEY, PAYLOAD)
    assert store.has("readings", KEY)
    assert_same(store.get("readings", KEY), PAYLOAD)
    assert store.get("texts", KEY) is None  # another kind is another file


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_ARRAYS = st.dictionaries(
    st.text("abc_", min_size=1, max_size=4),
    scalar_dtypes()
    .filter(lambda dtype: dtype.kind in "biuf" and dtype.isnative and dtype.itemsize <= 8)
    .flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))),
    max_size=3,
)


@settings(max_examples=60)
@given(_ARRAYS, _JSON)
def test_any_arrays_and_any_record_come_back(named: dict[str, Any], record: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.put("any", KEY, Payload(named, record))
        assert_same(store.get("any", KEY), Payload(named, record))


def test_arrays_that_do_not_lie_in_one_piece_come_back(store: Store) -> None:
    states = np.arange(24.0).reshape(4, 6)
    payload = Payload({"transposed": states.T, "strided": states[::2, 1::2], "fortran": np.asfortranarray(states)})
    store.put("views", KEY, payload)
    assert_same(store.get("views", KEY), payload)


@pytest.mark.parametrize(
    ("record", "read"), [({10: "a", 9: "b"}, {"10": "a", "9": "b"}), ((1, 2), [1, 2])], ids=["numbered", "tuple"]
)
def test_a_record_comes_back_as_json_has_it(store: Store, said: list[str], record: Any, read: Any) -> None:
    store.put("records", KEY, Payload({}, record))
    found = store.get("records", KEY)
    assert found is not None
    assert found.record == read
    assert said == []


# -- or absent --------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_noticed_and_the_file_goes(store: Store, said: list[str]) -> None:
    path = store.path("readings", KEY)
    store.put("readings", KEY, PAYLOAD)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        found = store.get("readings", KEY)
        if found is None:
            assert not path.exists()
            assert "computing it again" in said[-1]
        else:  # a bit that carries nothing: white space of the header
            assert_same(found, PAYLOAD)
    assert len(said) > len(whole) / 7 * 0.95


@pytest.mark.parametrize("left", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_noticed_and_goes(store: Store, said: list[str], left: int) -> None:
    store.put("readings", KEY, PAYLOAD)
    path = store.path("readings", KEY)
    path.write_bytes(path.read_bytes()[:left])
    assert store.get("readings", KEY) is None
    assert len(said) == 1
    assert path.name in said[0]
    assert not path.exists()


def test_a_file_of_another_program_is_noticed(store: Store, said: list[str]) -> None:
    from safetensors.numpy import save

    path = store.path("readings", KEY)
    write_atomically(path, save({"states": np.ones(3)}))
    assert store.get("readings", KEY) is None
    assert "cannot be read" in said[0]


def chunk(payload: Payload = PAYLOAD, computed: list[str] | None = None, **options: Any) -> Chunk:
    def compute() -> Payload:
        if computed is not None:
            computed.append(KEY)
        return payload

    return Chunk("readings", KEY, 5, compute, **options)


def test_finished_work_is_not_done_again(store: Store) -> None:
    computed: list[str] = []
    seen: list[Progress] = []
    engine = LocalEngine(store, seen.append)
    for _ in range(3):
        assert_same(engine.run("reading", [chunk(computed=computed)])[0], PAYLOAD)
    assert computed == [KEY]
    assert [(p.stage, p.done, p.total, p.fresh) for p in seen] == [("reading", 5, 5, 5), *[("reading", 5, 5, 0)] * 2]


def test_damaged_work_is_done_again_and_kept(store: Store, said: list[str]) -> None:
    computed: list[str] = []
    engine = LocalEngine(store)
    engine.run("reading", [chunk(computed=computed)])
    path = store.path("readings", KEY)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert_same(engine.run("reading", [chunk(computed=computed)])[0], PAYLOAD)
    assert said == [f"cache file {path.name} is damaged (its hash differs); computing it again"]
    assert_same(engine.run("reading", [chunk(computed=computed)])[0], PAYLOAD)
    assert len(computed) == 2


def test_work_in_which_something_failed_is_not_kept(store: Store) -> None:
    computed: list[str] = []
    failed = Payload({}, {"failures": 1})
    for payload in (failed, failed, PAYLOAD):
        engine = LocalEngine(store)
        attempt = chunk(payload, computed, keep=lambda p: "failures" not in p.record)
        assert engine.run("texts", [attempt])[0] is payload
    assert len(computed) == 3
    assert_same(store.get("readings", KEY), PAYLOAD)


def test_what_was_done_before_a_failure_stays_done(store: Store) -> None:
    def fail() -> Payload:
        raise KeyboardInterrupt

    chunks = [chunk(), Chunk("readings", content_key(what="the next"), 1, fail)]
    with pytest.raises(KeyboardInterrupt):
        LocalEngine(store).run("reading", chunks)
    assert_same(store.get("readings", KEY), PAYLOAD)


def test_payloads_come_in_the_chunks_order(store: Store) -> None:
    chunks = [Chunk("n", content_key(n=n), 1, lambda n=n: Payload({}, n)) for n in range(6)]
    engine = LocalEngine(store)
    engine.run("some", chunks[::2])
    assert [payload.record for payload in engine.run("all", chunks)] == list(range(6))


# -- writing ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_no_part_of_a_file(store: Store) -> None:
    small, large = Payload({}, "small"), Payload({"states": np.zeros((100, 100))})
    store.put("readings", KEY, small)
    refused = pytest.raises(
        BadInput, match=r"could not be written: .*80,\d+ bytes were to go there. Make room or choose"
    )
    with refused, full_disk():
        store.put("readings", KEY, large)
    assert_same(store.get("readings", KEY), small)  # what was there is still there
    assert files_in(store.root) == [f"{KEY}.safetensors"]


def test_no_room_is_said_even_when_it_shows_only_at_the_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match=r"No space left on device.* Make room .* finished work is kept"):
        store.put("readings", KEY, PAYLOAD)
    assert files_in(store.root) == []
    assert not store.has("readings", KEY)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file stands where the folder should")
    with pytest.raises(BadInput, match=r"store/.* could not be written"):
        Store(tmp_path / "store").put("readings", KEY, PAYLOAD)


def test_a_file_is_replaced_as_a_whole_and_readable_by_others(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "result.json"
    write_atomically(file, "eins été")
    write_atomically(file, b"zwei")
    assert file.read_bytes() == b"zwei"
    assert file.stat().st_mode & 0o777 == 0o644
    assert files_in(tmp_path) == ["result.json"]


_WRITER = """
import sys
import numpy as np
from pathlib import Path
from nlabench.benchmark.store import Payload, Store
complaints = []
store = Store(Path(sys.argv[1]), complaints.append)
for _ in range(150):
    store.put("readings", "same", Payload({"states": np.full(20_000, 7.0)}, "whole"))
    found = store.get("readings", "same")
    assert found is not None and found.record == "whole" and (found.arrays["states"] == 7).all()
assert complaints == [], complaints
"""


def test_processes_that_write_the_same_key_never_see_half_a_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path)]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
    assert files_in(tmp_path) == ["same.safetensors"]


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_its_parts_and_not_their_order() -> None:
    assert content_key(a=1, b=["x", {"é": 2}]) == content_key(b=["x", {"é": 2}], a=1)
    keys = {content_key(a=1), content_key(a=2), content_key(b=1), content_key(a="1"), content_key(a=1, b=None)}
    assert len(keys) == 5
    assert len(KEY) == 32


def test_a_key_is_the_same_in_every_process() -> None:
    code = "from nlabench.benchmark.store import content_key; print(content_key(what='a test'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == KEY


def test_an_arrays_fingerprint_is_its_bytes_its_shape_and_its_type() -> None:
    base = np.arange(6, dtype=np.float32)
    others = [base.reshape(2, 3), base.reshape(3, 2), base.astype(np.float64), base.view(np.int32), base[::-1], -base]
    assert len({array_fingerprint(array) for array in (base, *others)}) == 7
    assert array_fingerprint(np.stack([base, base])[:, ::2]) == array_fingerprint(np.stack([base[::2], base[::2]]))


def test_merging_puts_the_rows_of_all_parts_in_order() -> None:
    merged = merge_arrays([{"x": np.array([1, 2]), "y": np.eye(2)}, {"x": np.array([3]), "y": np.zeros((1, 2))}])
    assert merged["x"].tolist() == [1, 2, 3]
    assert merged["y"].shape == (3, 2)


def test_the_record_in_a_file_can_be_read_without_us(store: Store) -> None:
    from safetensors import safe_open

    store.put("texts", KEY, PAYLOAD)
    with safe_open(store.path("texts", KEY), framework="np") as file:
        assert json.loads(file.metadata()["record"]) == PAYLOAD.record
        assert file.keys() == ["states"]
