"""How do time and memory grow with items, concepts and resamples? On a *synthetic* study: texts and scores are drawn.

Every stage runs in a process of its own; its time and its peak are taken from when what it works on is made. The
exponent is the slope of log CPU seconds over log items from the size before: 1 is linear. No figure is a result about a
verbalizer.

    python scripts/bench_growth.py [--items 1000 10000 100000] [--concepts 52] [--resamples 2000] [--stages …]
    python scripts/bench_growth.py --items 20000 --concepts 16 52 200
    python scripts/bench_growth.py --items 20000 --resamples 500 2000 10000
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from growth.stages import STAGES, Given
from growth.synthetic import ROLES, plan_study

#: Every arm, concept and strength has items: there is no study of fewer.
FEWEST_ITEMS = 1_000


@dataclass(frozen=True)
class Size:
    """One run's size; `items` is how many were asked for, a study has as many or a few more."""

    items: int
    concepts: int
    resamples: int


@dataclass(frozen=True)
class Measured:
    """What a stage took. seconds is None where it did not end, and `note` says why; cpu: of it, the processor's, which
    other work on the same cores does not lengthen. Memory in MiB, without pages of files: `given` is what the process
    held before the stage (imports, and what the stage works on), `peak` the most it held during it."""

    n_items: int
    seconds: float | None
    cpu: float = math.nan
    given: float = math.nan
    peak: float = math.nan
    note: str = ""


def measure_here(stage: str, given: Given) -> Measured:
    """Do a stage in this process."""
    work = STAGES[stage](given)
    with _Watch() as memory:
        start, cpu = time.perf_counter(), time.process_time()
        told = work()
        seconds, busy = time.perf_counter() - start, time.process_time() - cpu
    return Measured(given.plan.n_items, seconds, busy, memory.given, memory.peak, told["note"])


def measure_apart(stage: str, size: Size, folder: Path, options: argparse.Namespace) -> Measured:
    """Do a stage in a new process, which may take so much memory and time and no more."""
    command = [sys.executable, __file__, "--child", stage, "--folder", str(folder), "--scorers", str(options.scorers)]
    command += ["--distinct", str(options.distinct), "--most-memory", str(options.most_memory)]
    command += [part for name, n in asdict(size).items() for part in (f"--{name}", str(n))]
    n_items = plan_study(size.items, size.concepts).n_items
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * options.most_minutes, check=False)
    except subprocess.TimeoutExpired:
        return Measured(n_items, None, note=f"not done in {options.most_minutes:g} minutes, what it works on included")
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        return Measured(n_items, None, note=f"with {options.most_memory:g} GiB: {last[0][:120]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def find_exponent(before: Measured | None, now: Measured, grown: float) -> float | None:
    """The slope of log CPU seconds over the log of what grew by the factor `grown`; None where there are not two."""
    if before is None or before.seconds is None or now.seconds is None or grown == 1:
        return None
    return math.log(now.cpu / before.cpu) / math.log(grown)


class _Watch:
    """The most memory of its own that this process holds, in MiB, looked at fifty times a second.

    Linux tells it apart from pages of files, which the system takes back when others need the room. Elsewhere the peak
    is that of all, from the start of the process.
    """

    def __enter__(self) -> _Watch:
        self.given = self.peak = _read_private()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.peak = max(self.peak, _read_private())
            if self._over.wait(0.02):
                return


def _read_private() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if "RssAnon" in line)
    per_unit = 2**20 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_unit


def describe_machine() -> str:
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores ({platform.machine()}), load {load:.1f}, Python {platform.python_version()}"


def run_child(options: argparse.Namespace) -> None:
    if sys.platform == "linux":
        limit = int(options.most_memory * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    plan = plan_study(options.items[0], options.concepts[0])
    given = Given(plan, options.resamples[0], options.scorers, options.distinct, options.folder)
    print(json.dumps(asdict(measure_here(options.child, given))))


def bench(sizes: Sequence[Size], axis: str, options: argparse.Namespace) -> None:
    """Print a table: for every stage a row per size, with the exponent from the size before."""
    print(f"\n{'stage':24} {'items':>9} {axis:>9}  seconds      CPU  given MiB  peak MiB  exponent")
    found: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for size in sizes:
            folder = (options.keep or Path(temporary)) / "-".join(str(n) for n in asdict(size).values())
            folder.mkdir(parents=True, exist_ok=True)
            for stage in options.stages:
                now = measure_apart(stage, size, folder, options)
                rows = found.setdefault(stage, [])
                before = rows[-1] if rows else None
                rows.append(now)
                grown = now.n_items / before.n_items if before else 1.0
                if axis != "items" and before:
                    grown = getattr(size, axis) / getattr(sizes[len(rows) - 2], axis)
                exponent = find_exponent(before, now, grown)
                print(_show(stage, now, getattr(size, axis), exponent), flush=True)


def _show(stage: str, now: Measured, along: int, exponent: float | None) -> str:
    slope = "" if exponent is None else f"{exponent:.2f}"
    if now.seconds is None:
        return f"{stage:24} {now.n_items:9,} {along:9,}  stopped: {now.note}"
    numbers = f"{now.seconds:7.2f}  {now.cpu:7.2f}  {now.given:9,.0f}  {now.peak:8,.0f}  {slope:>8}"
    return f"{stage:24} {now.n_items:9,} {along:9,}  {numbers}  {now.note}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--concepts", type=int, nargs="+", default=[52])
    parser.add_argument("--resamples", type=int, nargs="+", default=[2_000])
    parser.add_argument("--scorers", type=int, default=1, help="drawn scorers; a score set is one of them and one of 3")
    parser.add_argument("--distinct", type=int, default=2_000, help="texts that the real scorers score, at most")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--most-memory", type=float, default=8.0, help="GiB that a stage may take")
    parser.add_argument("--most-minutes", type=float, default=10.0, help="that a stage may take")
    parser.add_argument("--keep", type=Path, help="a folder for the runs, reports and sites that are made")
    parser.add_argument("--child", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if min(options.items) < FEWEST_ITEMS:
        parser.error(f"--items {min(options.items)}: every arm and concept has some; expected {FEWEST_ITEMS} or more")
    if options.child:
        run_child(options)
        return
    axes: dict[str, list[Any]] = {name: getattr(options, name) for name in ("items", "concepts", "resamples")}
    several = [name for name, values in axes.items() if len(values) > 1]
    if len(several) > 1:
        parser.error(f"{' and '.join(several)} vary at once; give several values of one, and one of the others")
    axis = several[0] if several else "items"
    print(f"{describe_machine()}. Synthetic: {len(ROLES) * options.scorers} score sets drawn from a seed, no model.")
    fixed = {name: values[0] for name, values in axes.items()}
    bench([Size(**{**fixed, axis: value}) for value in axes[axis]], axis, options)


if __name__ == "__main__":
    main()
