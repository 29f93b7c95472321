"""A Ray cluster, started here or joined, and looked over before any work: is it there, alike, and large enough?"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

import torch

from .engine import EngineSettings
from .errors import BadInput

#: Seconds in which a cluster answers, or is not there.
ANSWER_SECONDS = 20

#: Environment variables of the driver that decide what a worker loads, and how it computes.
PASSED_ON = (
    "NLABENCH_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "OMP_WAIT_POLICY",
    "TOKENIZERS_PARALLELISM", "TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS",
)  # fmt: skip


@dataclass(frozen=True)
class Cluster:
    """n_workers processes, each with `cores` cores (its torch takes as many threads) and `gpus` GPUs (0 on a CPU, more
    than 1 where the subject is split).

    ours: whether Ray was started or joined here, and is to be left when the work is done.
    """

    n_workers: int
    cores: int
    gpus: int
    ours: bool


def connect_cluster(settings: EngineSettings, device: str, gpus: int = 1) -> Cluster:
    """Start a local Ray, or join the one at `ray_address`, and check that it can do the work.

    A worker gets as many GPUs as one copy of the run's models takes, all on one node, where they are on GPUs; and as
    many cores as torch takes threads here: sums are split among threads, and a run's numbers shall not hang on where it
    ran.

    Raises:
        BadInput: Ray is not installed, no cluster answers, it has other versions than this process, or too few GPUs or
            cores.
    """
    _check_options(settings)
    on_gpu = _is_on_gpu(device)
    ray = _import_ray()
    ours = not ray.is_initialized()
    if ours:
        _join(ray, settings.ray_address)
    try:
        _check_alike(ray)
        return _size_up(ray, settings.workers, gpus if on_gpu else 0, ours)
    except BaseException:
        if ours:
            ray.shutdown()
        raise


def _check_options(settings: EngineSettings) -> None:
    for option, value in (("--workers", settings.workers), ("--chunk-timeout", settings.chunk_timeout)):
        if value is not None and value <= 0:
            raise BadInput(f"{option} is {value:g}; expected a number above 0. Leave it out for the default.")


def _is_on_gpu(device: str) -> bool:
    where = torch.device(device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu"))
    if where.index:
        raise BadInput(
            f"--device {device} names one GPU among several, and each Ray worker sees only its own as cuda:0. Pass "
            f"--device cuda, and CUDA_VISIBLE_DEVICES={where.index} for the GPU that this process itself is to take."
        )
    if where.type not in ("cpu", "cuda"):
        raise BadInput(f"--device {device}: Ray gives workers cores or CUDA GPUs. Pass --device cpu or cuda.")
    return where.type == "cuda"


def _import_ray() -> Any:
    # Numbers about who runs what leave no machine from here unless its owner says so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray lets its workers yield to everything else on the machine; here they are the work.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
    except ImportError as error:
        raise BadInput(
            f"--engine ray needs Ray, which is not installed here ({error}). pip install 'nlabench[ray]', or leave "
            "--engine out: the local engine gives the same numbers."
        ) from error
    return ray


def _join(ray: Any, address: str | None) -> None:
    # Without `address="local"` Ray would join whatever cluster it finds on this machine.
    if address is not None and "://" not in address:
        check_answers(address)
    try:
        ray.init(
            address=address or "local", include_dashboard=False if address is None else None, log_to_driver=False,
            logging_level="error", configure_logging=False,
        )  # fmt: skip
    except Exception as error:
        said = " ".join(str(error).split())[:400]
        if "ersion mismatch" in said:
            raise BadInput(
                f"The Ray cluster at {address} and this process do not have the same versions: {said}. Start the "
                "cluster and this command from one environment (the same Python, the same Ray)."
            ) from error
        if address is None:
            raise BadInput(
                f"Ray could not be started on this machine: {type(error).__name__}: {said}. Free memory, or room in "
                "/tmp and /dev/shm, or leave --engine out: the local engine gives the same numbers."
            ) from error
        raise BadInput(
            f"No Ray cluster could be joined at {address!r} ({type(error).__name__}: {said}). Start one (`ray start "
            "--head` prints its address, HOST:6379), or leave --ray-address out to start one on this machine."
        ) from error


def check_answers(address: str) -> None:
    """Ray itself tries for minutes, and then ends the process, where nothing answers.

    Raises:
        BadInput: nothing listens at the address, or it is none.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    try:
        if not host or not port.isdigit():
            raise OSError("an address is HOST:PORT")
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise BadInput(
            f"No Ray cluster could be joined at {address!r} ({error}). Start one (`ray start --head` prints its "
            "address, HOST:6379), or leave --ray-address out to start one on this machine."
        ) from error


def _check_alike(ray: Any) -> None:
    """Compare what decides numbers, on every node, with this process."""
    from ray.exceptions import TaskUnschedulableError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    survey = ray.remote(num_cpus=0, max_retries=0)(survey_versions())
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        survey.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in nodes
    ]
    here = survey_versions()()
    for node, answer in zip(nodes, asked, strict=True):
        try:
            there = ray.get(answer, timeout=15 * ANSWER_SECONDS)
        except TaskUnschedulableError:
            continue  # it has left meanwhile, and will be given nothing
        except Exception as error:
            said = " ".join(str(error).split())[:300]
            raise BadInput(
                f"The Ray node {node['NodeManagerAddress']} did not answer: {type(error).__name__}: {said}. Look at "
                "`ray status`, and start the nodes that are ill again."
            ) from error
        other = {name: (version, here[name]) for name, version in there.items() if version != here[name]}
        if other:
            listed = "; ".join(f"{name} {theirs} there, {ours} here" for name, (theirs, ours) in other.items())
            raise BadInput(
                f"The Ray node {node['NodeManagerAddress']} has other versions than this process: {listed}. Numbers "
                "would hang on which node computed them: install the same on all nodes (scripts/constraints.txt pins "
                "versions), and start Ray from that environment."
            )


def survey_versions() -> Any:
    """A function that says which versions a process has. It travels as code: a node may not have this package."""

    def survey() -> dict[str, str]:
        import hashlib
        import importlib.metadata
        import importlib.util
        import pathlib
        import sys

        found = {"Python": ".".join(map(str, sys.version_info[:3]))}
        for name in ("ray", "torch", "transformers", "numpy"):
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = "none"
        spec = importlib.util.find_spec("nlabench")
        found["nlabench"] = "none"
        if spec is not None and spec.origin is not None:
            # By its code: a checkout that is edited keeps its version.
            files = sorted((pathlib.Path(spec.origin).parent / "benchmark").rglob("*.py"))
            code = b"".join(file.read_bytes() for file in files)
            found["nlabench"] = f"{importlib.metadata.version('nlabench')}+{hashlib.sha256(code).hexdigest()[:8]}"
        return found

    return survey


def _size_up(ray: Any, asked: int | None, gpus: int, ours: bool) -> Cluster:
    """gpus: of each worker."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    n_cores, n_gpus = (int(sum(node.get(name, 0) for node in nodes)) for name in ("CPU", "GPU"))
    threads = torch.get_num_threads()
    where = f"{len(nodes)} node{'s' * (len(nodes) != 1)}, {n_cores} core{'s' * (n_cores != 1)}"
    if gpus:
        with_gpus = [node for node in nodes if node.get("GPU", 0) >= gpus]
        seats = sum(int(node["GPU"] // gpus) for node in with_gpus)
        if seats < (asked or 1):
            raise BadInput(_say_too_few_gpus(asked or 1, gpus, seats, n_gpus, where))
        cores = min([threads, *(int(node.get("CPU", 0) // (node["GPU"] // gpus)) for node in with_gpus)])
        room = sum(int(min(node["GPU"] // gpus, node.get("CPU", 0) // max(cores, 1))) for node in with_gpus)
    else:
        cores, room = threads, sum(int(node.get("CPU", 0) // threads) for node in nodes)
    if max(room, 0) < (asked or 1) or cores < 1:
        raise BadInput(
            f"{asked or 1} worker(s) of {max(cores, 1)} core(s) each were asked for (a worker computes with as many "
            f"threads as this process); the Ray cluster ({where}) has room for {room}. Pass fewer --workers, set "
            "OMP_NUM_THREADS to a smaller number (texts can then differ where two tokens tie), or add nodes."
        )
    return Cluster(asked or room, cores, gpus, ours)


def _say_too_few_gpus(asked: int, gpus: int, seats: int, n_gpus: int, where: str) -> str:
    if gpus == 1:
        remedy = f"--workers {n_gpus}" if n_gpus else "--device cpu"
        return (
            f"{asked} worker(s) were asked for, one GPU each; the Ray cluster has {n_gpus} ({where}). Pass {remedy}, "
            "or add nodes with GPUs."
        )
    remedy = f"Pass --workers {seats}" if seats else "Pass --quantize 4bit or a smaller --dtype, for fewer GPUs each"
    return (
        f"{asked} worker(s) were asked for, and the subject takes {gpus} GPUs of one node each; the Ray cluster has "
        f"{n_gpus} GPUs in all ({where}), which are room for {seats}. {remedy}, or add nodes with {gpus} GPUs or more."
    )
