"""The results store: entries are added whole, once, by any number of processes, and a broken one harms no other."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from nlabench.benchmark.errors import BadInput
from nlabench.leaderboard import results_store
from nlabench.leaderboard.entries import Verification, entry_id
from nlabench.leaderboard.results_store import add_entry, read_store, slug
from nlabench.submitting import submit

CARD = {"authors": ["A. Person"], "link": "https://example.org/mine", "licence": "MIT", "training_data": "Nothing."}


@pytest.fixture(scope="module")
def entries(
    tmp_path_factory: pytest.TempPathFactory,
    write_planted_run: Callable[..., Path],
    say_planted: Callable[..., list[str]],
) -> list[Path]:
    folder = tmp_path_factory.mktemp("packed")
    run = write_planted_run(folder / "run", {"one": say_planted(0.3), "two/../..": say_planted(0.6)})
    names = ("one", "two/../..")
    return [submit(run, folder / str(i), verbalizer=name, **CARD) for i, name in enumerate(names)]  # type: ignore[arg-type]


def test_an_added_entry_lies_under_subject_verbalizer_and_id_and_is_read_back(
    entries: list[Path], tmp_path: Path
) -> None:
    place = add_entry(entries[0], tmp_path)
    assert place.relative_to(tmp_path).parts == ("planted", "one", entry_id(entries[0]))
    (found,), broken = read_store(tmp_path)
    assert (found.folder, found.id, broken) == (place, place.name, [])


def test_a_name_with_a_path_in_it_stays_in_the_store(entries: list[Path], tmp_path: Path) -> None:
    place = add_entry(entries[1], tmp_path / "store")
    assert place.resolve().is_relative_to((tmp_path / "store").resolve())
    assert len(place.relative_to(tmp_path / "store").parts) == 3


@pytest.mark.parametrize("name", ["..", ".", "", "/", "../../etc", ".hidden", "a\\..\\b", "\u202e", "x" * 500])
def test_a_slug_is_one_plain_name(name: str) -> None:
    made = slug(name)
    assert made
    assert not made.startswith(".")
    assert len(made) <= 80
    assert Path(made).name == made


def test_adding_the_same_content_again_changes_nothing(entries: list[Path], tmp_path: Path) -> None:
    place = add_entry(entries[0], tmp_path)
    seal = Verification(how="rerun", by="m", date="2026-01-01", evidence="e").model_dump_json()
    (place / "verified.json").write_text(seal)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert add_entry(entries[0], tmp_path) == place
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_verification_in_a_submission_is_not_taken_into_the_store(entries: list[Path], tmp_path: Path) -> None:
    claiming = Path(shutil.copytree(entries[0], tmp_path / "claiming"))
    seal = Verification(how="rerun", by="me", date="2026-01-01", evidence="trust me").model_dump_json()
    (claiming / "verified.json").write_text(seal)
    add_entry(claiming, tmp_path / "store")
    (found,), _ = read_store(tmp_path / "store")
    assert found.status == "self-reported"


def test_an_add_that_is_interrupted_leaves_no_entry_and_takes_no_other_down(
    entries: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []

    def stop(source: Path, target: Path) -> None:
        if copied:
            raise KeyboardInterrupt
        copied.append(source.name)
        target.write_bytes(source.read_bytes())

    with monkeypatch.context() as patched:
        patched.setattr(results_store.shutil, "copyfile", stop)
        with pytest.raises(KeyboardInterrupt):
            add_entry(entries[0], tmp_path)
    assert read_store(tmp_path) == ([], [])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    # A process that is killed cleans nothing up: what it leaves is hidden, whole or not.
    shutil.copytree(entries[0], tmp_path / "planted" / "one" / ".adding-left")
    add_entry(entries[0], tmp_path)
    found, broken = read_store(tmp_path)
    assert (len(found), broken) == (1, [])


def _add(folder: Path, root: Path) -> None:
    add_entry(folder, root)


def test_processes_that_add_at_once_lose_nothing(entries: list[Path], tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    adding = [context.Process(target=_add, args=(folder, tmp_path)) for folder in [*entries, *entries]]
    for process in adding:
        process.start()
    for process in adding:
        process.join()
    assert [process.exitcode for process in adding] == [0] * len(adding)
    found, broken = read_store(tmp_path)
    assert {entry.id for entry in found} == {entry_id(folder) for folder in entries}
    assert broken == []
    assert not list(tmp_path.rglob(".adding-*"))


def test_a_broken_entry_is_named_and_the_others_are_read(entries: list[Path], tmp_path: Path) -> None:
    spoiled, whole = add_entry(entries[0], tmp_path), add_entry(entries[1], tmp_path)
    (spoiled / "result.json").write_text("{}")
    moved = whole.parent / "000000000000"
    shutil.copytree(whole, moved)
    empty = whole.parent / "111111111111"
    empty.mkdir()
    found, broken = read_store(tmp_path)
    assert [entry.folder for entry in found] == [whole]
    reasons = dict(broken)
    assert reasons.keys() == {spoiled, moved, empty}
    assert "result.json has the SHA-256" in reasons[spoiled]
    assert "its manifest was changed" in reasons[moved]
    assert "missing" in reasons[empty]


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_store(tmp_path / "none") == ([], [])


def test_what_is_no_whole_submission_is_not_added(entries: list[Path], tmp_path: Path) -> None:
    half = Path(shutil.copytree(entries[0], tmp_path / "half"))
    (half / "items.parquet").unlink()
    with pytest.raises(BadInput, match=r"missing items\.parquet"):
        add_entry(half, tmp_path / "store")
    assert not (tmp_path / "store").exists()
