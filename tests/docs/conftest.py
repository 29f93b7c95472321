"""What the tests of docs share: its pages, the blocks of code on them, and a bench where their commands are run."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
from nlabench.benchmark.assets import cache_folder
from nlabench.benchmark.records import Result, read_result
from nlabench.cli import main

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PAGE = (ROOT / "docs" / "bring-your-own.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def find_blocks(info: str, page: str = PAGE) -> list[str]:
    """What stands in the fenced blocks of a page that start with this line."""
    return re.findall(rf"^```{re.escape(info)}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def find_block(info: str, page: str = PAGE) -> str:
    (block,) = find_blocks(info, page)
    return block


def check_links(page: Path) -> None:
    """Every link of a page to a file, or to a heading, leads there."""
    for path, anchor in re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {path}"
        assert not anchor or anchor in find_anchors(target), f"{page.name}: {path}#{anchor}"


def find_anchors(page: Path) -> set[str]:
    """What a page's headings are linked by: in lower case, punctuation gone, spaces as hyphens."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@dataclass(frozen=True)
class Bench:
    """A folder with the examples, where the page's commands are run. ports: the page's, and a free one for each."""

    folder: Path
    environment: dict[str, str]
    ports: dict[str, str]

    def write(self, info: str) -> str:
        """The commands of a block, with ports that are free."""
        commands = find_block(info)
        for port, free in self.ports.items():
            commands = commands.replace(port, free)
        return commands

    def run(self, commands: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands], cwd=self.folder, env=self.environment, text=True,
            capture_output=True, check=False,
        )  # fmt: skip

    def follow(self, info: str) -> str:
        """Run a block of the page, and give what it printed."""
        done = self.run(self.write(info))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run_here(self, command: str) -> None:
        """Run one `nlabench` command in this process: another takes ten seconds to import and load what this has."""
        said = io.StringIO()
        with (
            chdir(self.folder), mock.patch.dict(os.environ, self.environment), redirect_stdout(said),
            mock.patch.multiple(sys, argv=shlex.split(command), path=sys.path.copy()), redirect_stderr(said),
            pytest.raises(SystemExit) as ended,
        ):  # fmt: skip
            main()
        assert not ended.value.code, said.getvalue()

    def follow_here(self, info: str, before_run: Callable[[], None] = lambda: None) -> None:
        """Run a block of the page, line by line, and its `nlabench run` in this process."""
        for line in self.write(info).splitlines():
            if line.startswith("nlabench run "):
                before_run()
                self.run_here(line)
            else:
                done = self.run(line)
                assert done.returncode == 0, done.stdout + done.stderr

    @contextmanager
    def serving(self, info: str) -> Iterator[None]:
        """Run a block of the page until the end of the `with`: the other terminal."""
        commands = self.write(info)
        (port,) = [free for free in self.ports.values() if free in commands]
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", commands], cwd=self.folder, env=self.environment,
            stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            while not is_listening(int(port)):
                assert process.poll() is None, f"{commands!r} ended with {process.returncode}"
                time.sleep(0.1)
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()

    def result(self, folder: str) -> Result:
        return read_result(self.folder / "runs" / folder / "result.json")

    def items(self, folder: str, verbalizer: str) -> pd.DataFrame:
        items = pd.read_parquet(self.folder / "runs" / folder / "items.parquet")
        return items[items["verbalizer"] == verbalizer]

    def texts(self, folder: str, verbalizer: str) -> dict[str, str]:
        items = self.items(folder, verbalizer)
        return dict(zip(items["item_id"], items["text"], strict=True))


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def find_free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for these tests alone, and for all of them: what one command has read, the next one finds there."""
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache-of-docs"
    cache.mkdir(exist_ok=True)
    with suppress(FileExistsError):  # another worker made it
        (cache / "assets").symlink_to(cache_folder() / "assets")
    return cache


def shrink_suite(folder: Path) -> None:
    """Make the examples' small suite smaller still: half its concepts, and hardly any items."""
    file = folder / "small.toml"
    fewer = {
        "n_concepts": 3, "readout_prompts": 3, "prompts_per_concept": 1, "gaussian_items": 2, "gate_permuted_draws": 2,
    }  # fmt: skip
    text, n = re.subn(rf"^({'|'.join(fewer)}) = .*$", lambda m: f"{m[1]} = {fewer[m[1]]}", file.read_text(), flags=re.M)
    assert n == len(fewer)
    file.write_text(text)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Bench:
    """The examples, where the page's commands are run."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs", "__pycache__"))
    shrink_suite(folder)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "NLABENCH_CACHE": str(shared_cache), "PATH": path}
    return Bench(folder, environment, {port: find_free_port() for port in ("30000", "8000")})
