"""Chunks on a real Ray cluster of two nodes: whatever becomes of a worker, the payloads are the undisturbed run's."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nlabench
import numpy as np
import pandas as pd
import pytest
import torch
from nlabench.benchmark.assets import cache_folder, fetch_asset
from nlabench.benchmark.concepts import ConceptPack
from nlabench.benchmark.engine import Chunk, EngineSettings, LocalEngine, Progress, open_engine
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.loading import load_subject
from nlabench.benchmark.memory import halve_on_overflow
from nlabench.benchmark.runner import RunSettings
from nlabench.benchmark.store import Payload, Store, content_key
from nlabench.benchmark.subject import Subject

os.environ.update(RAY_worker_niceness="0")  # workers that yield to everything else take minutes on shared cores
ray = pytest.importorskip("ray")
from nlabench.benchmark.ray_cluster import _size_up, check_answers  # noqa: E402
from nlabench.benchmark.ray_engine import RayEngine  # noqa: E402
from nlabench.benchmark.ray_packing import Packer  # noqa: E402
from nlabench.benchmark.ray_worker import Worker  # noqa: E402

pytestmark = pytest.mark.slow

# Workers cannot import this file: what it defines travels as code.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

Open = Callable[..., RayEngine]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A worker of an engine has as many cores as this process has threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found.add_node(num_cpus=1)
    # Joined once for all tests: an engine that finds Ray joined already leaves it so.
    ray.init(address=found.address, log_to_driver=False, logging_level="error")
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture(scope="module")
def shared(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayEngine]:
    """An engine of two workers: starting one takes seconds."""
    settings = EngineSettings("ray", cluster.address, 2)
    engine = open_engine(settings, Store(tmp_path_factory.mktemp("store")), lambda _: None, "cpu")
    assert isinstance(engine, RayEngine)
    yield engine
    engine.close()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def opened(shared: RayEngine, tmp_path: Path, said: list[str]) -> Open:
    """Opens the engine with a store of the test's own."""

    def open_one(chunk_timeout: float | None = None, report: Any = lambda _: None) -> RayEngine:
        shared.store, shared.report = Store(tmp_path / "store", said.append), report
        shared.chunk_timeout = chunk_timeout
        return shared

    return open_one


@dataclasses.dataclass(frozen=True)
class Squares:
    """Chunks that square numbers, and one of them in which something happens at its first tries.

    folder: where each try leaves a file, whichever process it is in.
    """

    folder: Path
    happens: Callable[[], None] = lambda: None
    victim: int = 2
    times: int = 1
    n: int = 6

    @property
    def chunks(self) -> list[Chunk]:
        self.folder.mkdir(exist_ok=True)
        return [Chunk("squares", content_key(n=n), n + 1, functools.partial(self.square, n)) for n in range(self.n)]

    def square(self, n: int) -> Payload:
        before = len(list(self.folder.glob(f"{n}-*")))
        (self.folder / f"{n}-{time.monotonic_ns()}").touch()
        time.sleep(0.05)
        if n == self.victim and before < self.times:
            self.happens()
        return Payload({"square": np.array([n * n])}, {"n": n, "worker": os.getpid()})

    @property
    def tries(self) -> Counter[int]:
        return Counter(int(file.name.partition("-")[0]) for file in self.folder.iterdir())


def assert_squares(payloads: list[Payload], n: int = 6) -> None:
    assert [payload.record["n"] for payload in payloads] == list(range(n))
    assert [payload.arrays["square"].tolist() for payload in payloads] == [[i * i] for i in range(n)]


def kill_this_worker() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    time.sleep(1000)


def run_out_of_memory() -> None:
    raise MemoryError("no room for 3 TB")


ONCE = {0: 1, 1: 1, 3: 1, 4: 1, 5: 1}


# -- undisturbed ------------------------------------------------------------------------------------------------------


def test_payloads_come_in_order_and_finished_work_is_not_done_again(opened: Open, tmp_path: Path) -> None:
    seen: list[Progress] = []
    work = Squares(tmp_path / "tries")
    engine = opened(report=seen.append)
    store = Store(tmp_path / "store")
    LocalEngine(store).run("squares", work.chunks[1:3])
    assert_squares(engine.run("squares", work.chunks))
    assert_squares(engine.run("squares", [*work.chunks[3:], *work.chunks])[3:])
    assert work.tries == dict.fromkeys(range(6), 1)
    first = [p for p in seen if p.total == 21][:5]
    assert (first[0].done, first[0].fresh) == (5, 0)  # what the store had comes at once
    assert (first[-1].done, first[-1].fresh) == (21, 16)
    assert all(p.fresh == 0 for p in seen[5:])


def test_all_workers_share_the_work(opened: Open, tmp_path: Path) -> None:
    wait_for_workers(opened(), tmp_path, 2)


def test_equal_chunks_are_computed_once(opened: Open, tmp_path: Path) -> None:
    work = Squares(tmp_path / "tries", n=1)
    assert len(opened().run("squares", work.chunks * 3)) == 3
    assert work.tries == {0: 1}


def test_what_cannot_travel_is_computed_here_and_said(opened: Open, said: list[str]) -> None:
    import threading

    lock = threading.Lock()

    def compute() -> Payload:
        with lock:
            return Payload({}, os.getpid())

    (payload,) = opened().run("locks", [Chunk("locks", content_key(lock=1), 1, compute)])
    assert payload.record == os.getpid()
    assert "locks: computed in this process, since it cannot be sent" in said[0]


def test_a_mistake_in_a_chunk_is_the_error_that_the_local_engine_raises(opened: Open, tmp_path: Path) -> None:
    def refuse() -> None:
        raise BadInput("The verbalizer returned 3 texts for 4 vectors.")

    work = Squares(tmp_path / "tries", refuse)
    with pytest.raises(BadInput, match="3 texts for 4 vectors"):
        opened().run("squares", work.chunks)


def test_a_worker_computes_with_the_threads_of_this_process(opened: Open) -> None:
    def threads() -> Payload:
        import torch

        return Payload({}, torch.get_num_threads())

    assert opened().run("threads", [Chunk("n", content_key(threads=1), 1, threads)])[0].record == 1


# -- faults -----------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_costs_the_chunk_that_it_had(opened: Open, tmp_path: Path, said: list[str]) -> None:
    work = Squares(tmp_path / "tries", kill_this_worker)
    assert_squares(opened().run("squares", work.chunks))
    assert work.tries == {**ONCE, 2: 2}
    assert [line for line in said if "lost its worker; another one computes it" in line] == said


def test_a_chunk_that_kills_every_worker_is_named_and_the_rest_is_kept(
    opened: Open, tmp_path: Path, said: list[str]
) -> None:
    work = Squares(tmp_path / "tries", kill_this_worker, victim=5, times=9)
    with pytest.raises(BadInput, match=r"A chunk of 'squares' \(squares \w+, size 6\) ended its worker 3 times"):
        opened().run("squares", work.chunks)
    assert work.tries == {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 3}
    assert_squares(LocalEngine(Store(tmp_path / "store")).run("squares", work.chunks[:5]), 5)
    assert work.tries[0] == 1


def test_a_chunk_that_memory_does_not_hold_is_tried_again_and_then_named(
    opened: Open, tmp_path: Path, said: list[str]
) -> None:
    engine = opened()
    work = Squares(tmp_path / "tries", run_out_of_memory)
    assert_squares(engine.run("squares", work.chunks))
    assert work.tries == {**ONCE, 2: 2}
    assert "did not fit into a worker's memory" in said[0]
    never = Squares(tmp_path / "never", run_out_of_memory, victim=6, times=9, n=7)
    with pytest.raises(BadInput, match=r"did not fit into a worker's memory, 3 times \(no room for 3 TB\)\. Give each"):
        engine.run("squares", never.chunks)


def test_a_chunk_that_hangs_is_taken_from_its_worker_and_tried_once_more(
    opened: Open, tmp_path: Path, said: list[str]
) -> None:
    engine = opened(chunk_timeout=3)
    work = Squares(tmp_path / "tries", hang)
    assert_squares(engine.run("squares", work.chunks))
    assert work.tries == {**ONCE, 2: 2}
    assert "took more than 3 s; another worker tries it" in said[0]
    never = Squares(tmp_path / "never", hang, victim=6, times=9, n=7)
    with pytest.raises(BadInput, match=r"took more than 3 s, 2 times, on two workers\. Pass a longer --chunk-timeout"):
        engine.run("squares", never.chunks)


DRIVER = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from nlabench.benchmark.engine import Chunk, EngineSettings, open_engine
from nlabench.benchmark.store import Payload, Store, content_key
import numpy as np

address, store, tries = sys.argv[1:]

def square(n):
    (Path(tries) / f"{n}-{time.monotonic_ns()}").touch()
    time.sleep(0.5)
    return Payload({"square": np.array([n * n])}, {"n": n})

engine = open_engine(EngineSettings("ray", address, 2), Store(Path(store)), lambda _: None, "cpu")
chunks = [Chunk("squares", content_key(n=n), n + 1, lambda n=n: square(n)) for n in range(6)]
engine.run("squares", chunks)
"""


def test_a_driver_that_is_killed_resumes(cluster: Any, opened: Open, tmp_path: Path) -> None:
    work = Squares(tmp_path / "tries", times=0)
    chunks = work.chunks
    arguments = [cluster.address, str(tmp_path / "store"), str(tmp_path / "tries")]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *arguments], cwd=tmp_path)
    deadline = time.monotonic() + 200
    while not (found := list((tmp_path / "store").rglob("*.safetensors"))) and driver.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(1.5)  # chunks that were on their way end, and reach nobody
    kept, before = len(list((tmp_path / "store").rglob("*.safetensors"))), work.tries
    assert 0 < len(found) <= kept < 6
    assert_squares(opened().run("squares", chunks))
    assert sum((work.tries - before).values()) == 6 - kept


def test_a_node_that_leaves_takes_nothing_with_it(
    cluster: Any, opened: Open, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = cluster.add_node(num_cpus=1)
    work = Squares(tmp_path / "tries", times=0, n=16)

    def leave(progress: Progress) -> None:
        if progress.stage == "squares" and progress.done > 20 and node in cluster.worker_nodes:
            cluster.remove_node(node, allow_graceful=False)

    engine = opened(report=leave)
    monkeypatch.setattr(engine, "cluster", dataclasses.replace(engine.cluster, n_workers=3))
    wait_for_workers(engine, tmp_path, 3)
    assert_squares(engine.run("squares", work.chunks), 16)
    assert node not in cluster.worker_nodes
    assert sum(work.tries.values()) <= 17  # its chunk, if it had one, and no other
    # A chunk that was on its way to the node leaves no try there.
    assert sum(work.tries.values()) - 16 <= len(said) <= 1


def wait_for_workers(engine: RayEngine, folder: Path, n: int) -> None:
    """Work until n workers have had some."""
    workers: set[int] = set()
    for batch in range(100):
        work = Squares(folder / f"wait-{batch}", times=0)
        chunks = [dataclasses.replace(c, key=content_key(wait=batch, n=i)) for i, c in enumerate(work.chunks)]
        workers |= {payload.record["worker"] for payload in engine.run("waiting", chunks)}
        assert os.getpid() not in workers
        if len(workers) >= n:  # one whose node has just left can still answer
            return
    raise AssertionError(f"{len(workers)} of {n} workers came up")


# -- what travels -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Counted:
    """A verbalizer that leaves a file wherever it is unpacked."""

    folder: str
    card: str = "counted"

    def verbalize(self, batch: Any) -> list[str]:
        return [str(os.getpid())]

    def __reduce__(self) -> Any:
        return unpack_counted, (self.folder,)


def unpack_counted(folder: str) -> Counted:
    (Path(folder) / f"{os.getpid()}-{time.monotonic_ns()}").touch()
    return Counted(folder)


def test_a_verbalizer_is_unpacked_once_by_each_worker(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "unpacked").mkdir()
    counted = Counted(str(tmp_path / "unpacked"))

    def compute() -> Payload:
        time.sleep(0.02)
        return Payload({}, counted.verbalize(None))

    engine = opened()
    wait_for_workers(engine, tmp_path, 2)
    payloads = engine.run("texts", [Chunk("texts", content_key(c=n), 1, compute) for n in range(12)])
    workers = {payload.record[0] for payload in payloads}
    assert Counter(file.name.partition("-")[0] for file in (tmp_path / "unpacked").iterdir()) == Counter(workers)


def travel(work: Callable[[], Any]) -> tuple[Any, Packer, list[str]]:
    """What a function is on the other side, without Ray between."""
    packer = Packer(lambda pickled: pickled)
    pickled, needs = packer.pack(work)
    worker = Worker(1, {}, ())
    for key in needs:
        worker.held[key] = worker._unpack(packer.references[key])
    return worker._unpack(pickled), packer, needs


def test_a_row_of_a_large_tensor_travels_without_the_rest() -> None:
    rows = torch.randn(1000, 1000)
    for row in (rows[3], rows.T[3], rows[3, :0], rows[3].bfloat16(), rows[3, 3]):
        pickled, _ = Packer(lambda pickled: pickled).pack(functools.partial(torch.clone, row))
        assert len(pickled) < 6000
        found, _, _ = travel(functools.partial(torch.clone, row))
        assert found().dtype == row.dtype
        assert torch.equal(found(), row)


def test_a_tensor_is_aligned_on_the_other_side_as_it_was() -> None:
    """Weights that were mapped from a file lie anywhere, and a product of one row is summed accordingly."""
    for start in (0, 1, 10):
        tensor = torch.arange(200.0)[start:]
        found, _, _ = travel(functools.partial(torch.add, tensor, 0))
        (arrived,) = [argument for argument in found.args if isinstance(argument, torch.Tensor)]
        assert arrived.data_ptr() % 64 == tensor.data_ptr() % 64 == 4 * start
        assert torch.equal(arrived, tensor)


def test_what_a_cached_function_made_is_made_once_on_the_other_side() -> None:
    made: list[int] = []

    @functools.cache
    def make() -> int:
        made.append(1)
        return len(made)

    found, packer, needs = travel(lambda: (make(), make()))
    assert found() == (1, 1)
    assert made == []
    assert list(packer.references) == needs == ["_lru_cache_wrapper-0"]


def test_a_subject_that_was_loaded_by_name_travels_by_its_name(any_subject: Subject) -> None:
    found, packer, needs = travel(lambda: any_subject)
    assert needs == ["Subject-0"]
    assert len(packer.references["Subject-0"]) < 2000
    there = found()
    assert there is not any_subject
    assert (there.name, there.fingerprint, there.recipe) == (
        any_subject.name,
        any_subject.fingerprint,
        any_subject.recipe,
    )
    assert all(torch.equal(a, b) for a, b in zip(there.model.parameters(), any_subject.model.parameters(), strict=True))


@pytest.fixture
def any_subject(tiny: Callable[[str], Subject], tmp_path: Path) -> Subject:
    """A small subject that was loaded from a folder."""
    tiny("llama").model.save_pretrained(tmp_path / "tiny")
    tiny("llama").tokenizer.save_pretrained(tmp_path / "tiny")
    return load_subject(str(tmp_path / "tiny"), device="cpu")


def test_other_weights_under_the_same_name_are_refused(any_subject: Subject, tmp_path: Path) -> None:
    packer = Packer(lambda pickled: pickled)
    _, needs = packer.pack(lambda: any_subject)
    with torch.no_grad():
        any_subject.model.lm_head.weight += 1
    any_subject.model.save_pretrained(tmp_path / "tiny")
    with pytest.raises(BadInput, match=r"found other weights than the run has .* Give every machine the same files"):
        Worker(1, {}, ())._unpack(packer.references[needs[0]])


def test_a_subject_that_was_changed_in_memory_travels_whole(tiny: Any) -> None:
    # A new one: a model of which transformers has captured hidden states keeps hooks that cannot be pickled.
    subject: Subject = tiny.__wrapped__("gemma3")
    found, packer, _ = travel(lambda: subject)
    assert len(packer.references["Subject-0"]) > 30_000
    there = found()
    assert there.blocks[0] is there.backbone.layers[0]
    ids = torch.tensor([[1, 5, 6, 7]])
    mine, theirs = (s.run(ids, torch.ones_like(ids), capture=[3])[3] for s in (subject, there))
    assert torch.equal(mine, theirs)


# -- memory -----------------------------------------------------------------------------------------------------------


def test_a_batch_that_memory_does_not_hold_is_halved_and_that_is_said(opened: Open, said: list[str]) -> None:
    def double(numbers: Any) -> list[int]:
        if len(numbers) > 3:
            raise MemoryError("too many")
        return [2 * number for number in numbers]

    def compute() -> Payload:
        return Payload({}, halve_on_overflow(double, list(range(10)), lambda a, b: a + b, "numbers"))

    (payload,) = opened().run("doubling", [Chunk("n", content_key(doubling=1), 10, compute)])
    assert payload.record == list(range(0, 20, 2))
    assert said == [
        "doubling: memory did not hold 10 numbers at once; they are halved",
        "doubling: memory did not hold 5 numbers at once; they are halved",
    ]


# -- mistakes ---------------------------------------------------------------------------------------------------------


def refusal(tmp_path: Path, device: str = "cpu", **settings: Any) -> str:
    with pytest.raises(BadInput) as raised:
        open_engine(EngineSettings(**settings), Store(tmp_path), lambda _: None, device)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    assert "There is no engine 'spark'. Choose local" in refusal(tmp_path, name="spark")
    assert "--workers: the engine `local` has no such option. Pass --engine ray" in refusal(tmp_path, workers=2)
    assert "--workers is 0; expected a number above 0" in refusal(tmp_path, name="ray", workers=0)
    assert "--chunk-timeout is -1" in refusal(tmp_path, name="ray", chunk_timeout=-1.0)
    assert "Pass --device cuda, and CUDA_VISIBLE_DEVICES=1" in refusal(tmp_path, "cuda:1", name="ray")


def test_a_split_subject_has_all_its_gpus_on_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    nodes = [{"Alive": True, "Resources": {"CPU": 16, "GPU": n}} for n in (8, 4, 2)]
    ray = SimpleNamespace(nodes=lambda: nodes)
    split = _size_up(ray, None, 3, ours=False)
    assert (split.n_workers, split.gpus, split.cores) == (3, 3, 8)  # two on the first node, one on the second
    with pytest.raises(BadInput) as raised:
        _size_up(ray, 4, 3, ours=False)
    assert "the subject takes 3 GPUs of one node each" in str(raised.value)
    assert "which are room for 3. Pass --workers 3, or add nodes with 3 GPUs or more" in str(raised.value)
    with pytest.raises(BadInput, match=r"room for 0\. Pass --quantize 4bit or a smaller --dtype"):
        _size_up(ray, None, 9, ours=False)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "Ray, which is not installed here" in (found := refusal(tmp_path, name="ray"))
    assert "pip install 'nlabench[ray]'" in found


def test_more_than_the_cluster_has_is_refused(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = functools.partial(refusal, tmp_path, name="ray", ray_address=cluster.address)
    assert "3 worker(s) of 1 core(s) each were asked for" in (found := ask(workers=3))
    assert "(2 nodes, 2 cores) has room for 2. Pass fewer --workers" in found
    assert "1 worker(s) were asked for, one GPU each; the Ray cluster has 0" in (found := ask(device="cuda"))
    assert "Pass --device cpu, or add nodes with GPUs" in found
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert "1 worker(s) of 2 core(s) each were asked for" in (found := ask())
    assert "set OMP_NUM_THREADS to a smaller number" in found


def test_other_versions_on_a_node_are_refused(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "1.0" if name in ("torch", "nlabench") else real(name)
    )
    found = refusal(tmp_path, name="ray", ray_address=cluster.address)
    assert f"torch {real('torch')} there, 1.0 here; nlabench {real('nlabench')}+" in found
    assert "install the same on all nodes" in found


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere.invalid:6379", "head-node", "127.0.0.1:99999"])
def test_a_cluster_that_does_not_answer_is_refused_at_once(address: str) -> None:
    with pytest.raises(
        BadInput, match=rf"No Ray cluster could be joined at '{address}' .*Start one \(`ray start --head"
    ):
        check_answers(address)


# -- a whole run ------------------------------------------------------------------------------------------------------

SUITE = """
base = "quick"
tasks = ["concept_identification", "functional_round_trip"]
n_concepts = 2
natural_per_concept = 1
final_per_concept = 0
readout_prompts = 3
prompts_per_concept = 1
strengths = [0.3, 2.0]
upstream_strengths = [0.5]
upstream_pairs_per_concept = 1
mid_per_concept = 1
mid_strengths = [0.3]
gaussian_items = 2
gate_requests = 2
gate_strengths = [0.3]
gate_permuted_draws = 2
"""


def test_a_run_on_ray_has_the_numbers_and_texts_of_a_local_one(
    cluster: Any, shared: RayEngine, thin_pack: ConceptPack, tmp_path: Path
) -> None:
    shared.close()  # its workers have the cores
    fetch_asset("smollm2-135m-instruct-q4_1")
    assets = cache_folder() / "assets"
    (tmp_path / "small.toml").write_text(SUITE)
    settings = RunSettings(suite=str(tmp_path / "small.toml"), device="cpu")
    results, texts = {}, {}
    for name, engine in (
        ("local", EngineSettings()),
        ("ray", EngineSettings("ray", cluster.address, 2, chunk_timeout=500)),
    ):
        home = tmp_path / name
        home.mkdir()
        (home / "assets").symlink_to(assets.resolve())
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NLABENCH_CACHE", str(home))
            results[name] = nlabench.run(
                ["nla:reference?new_tokens=16", "logit-lens"], settings, out=home / "run", pack=thin_pack,
                say=lambda _: None, engine=engine,
            )  # fmt: skip
        texts[name] = pd.read_parquet(home / "run" / "items.parquet")
    assert results["ray"].metrics == results["local"].metrics
    assert results["ray"].gate == results["local"].gate
    assert results["ray"].concepts == results["local"].concepts
    pd.testing.assert_frame_equal(texts["ray"], texts["local"], check_exact=True)
    kept = [
        {str(file.relative_to(tmp_path / name)) for file in (tmp_path / name / "store").rglob("*")} for name in texts
    ]
    assert kept[0] == kept[1]
