"""Where the halves of a checkpoint lie: folders as they are, or as little of a hub repository as will do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import SafetensorsParsingError
from safetensors import safe_open

from ..errors import BadInput
from .checkpoint import REFERENCE, REFERENCE_FOLDER, find_autoencoder
from .sidecar import SIDECAR

#: What is fetched from a hub in any case; the weights of an adapter are small.
SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.yaml", "*.txt", "*.md", "*adapter_model.safetensors"]

#: Second copies of weights in another layout.
_COPIES = ["original/*", "consolidated*"]


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of a tensor before its values."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """One half of a checkpoint.

    name: what it is called, with the folder of the pair. label: how its files are told from the other half's.
    role: "av" or "ar" where that follows from where it stands; empty for a half that was named alone.
    folder: where its files are. files: the names of all that it has, be they in the folder or only on the hub.
    remote: the hub's id, the commit, and the folder in it; None for a local folder.
    """

    name: str
    label: str
    role: str
    folder: Path
    files: frozenset[str]
    remote: tuple[str, str, str] | None = None

    def read_header(self, file: str) -> Mapping[str, Header]:
        """The tensors of a safetensors file by name; of a file that is only on the hub nothing else is fetched.

        Raises:
            OSError, SafetensorError: it cannot be read as one.
        """
        if self.remote is None or (self.folder / file).exists():
            with safe_open(self.folder / file, framework="pt") as opened:
                slices = {name: opened.get_slice(name) for name in sorted(opened.keys())}
                return {name: Header(s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
        hub_id, commit, inside = self.remote
        try:
            found = HfApi().parse_safetensors_file_metadata(hub_id, inside + file, revision=commit)
        except (SafetensorsParsingError, httpx2.HTTPError) as error:
            raise OSError(str(error)) from error
        return {name: Header(info.dtype, tuple(info.shape)) for name, info in found.tensors.items()}


def find_places(spec: str, *, weights: bool, say: Callable[[str], None] = lambda _: None) -> list[Place]:
    """The halves that a spec names: `reference`, an AV, an AR, a folder or hub id that holds both, or `AV,AR`.

    weights: whether all weights will be read: they are fetched then, if the spec is a hub id.

    Raises:
        BadInput: nothing is there, or no NLA.
    """
    if spec == REFERENCE and not REFERENCE_FOLDER.is_dir():
        find_autoencoder(spec)  # says how to get it
    where = str(REFERENCE_FOLDER) if spec == REFERENCE else spec
    parts = [where] if Path(where).expanduser().is_dir() else [part.strip() for part in where.split(",")]
    if not 1 <= len(parts) <= 2 or not all(parts):
        raise BadInput(f"{spec!r} names {len(parts)} checkpoints. Give one folder or hub id, or two as `AV,AR`.")
    wholes = [_find_whole(part, weights, say) for part in parts]
    if len(wholes) == 2:
        return [_part(whole, role, f"{role}/") for whole, role in zip(wholes, ("av", "ar"), strict=True)]
    inside = [role for role in ("av", "ar") if f"{role}/{SIDECAR}" in wholes[0].files]
    if SIDECAR in wholes[0].files:
        return [_part(wholes[0], "", "")]
    if inside:
        return [_part(wholes[0], role, f"{role}/", f"{role}/") for role in inside]
    raise BadInput(
        f"{parts[0]!r} is no checkpoint of an NLA: there is no {SIDECAR} in it, and none in `av/` or `ar/` in it. Give "
        "the folder of an AV or an AR, or one that holds both; without its sidecar a checkpoint cannot be used."
    )


def _find_whole(part: str, weights: bool, say: Callable[[str], None]) -> Place:
    folder = Path(part).expanduser()
    if folder.is_dir():
        home = folder.resolve()
        name = f"{home.parent.name}/{home.name}" if home.name in ("av", "ar", "actor", "critic") else home.name
        found = (path for pattern in ("*", "av/*", "ar/*") for path in folder.glob(pattern) if path.is_file())
        return Place(name, "", "", folder, frozenset(path.relative_to(folder).as_posix() for path in found))
    hub_id, _, revision = part.partition("@")
    say(f"{hub_id}: no folder of that name; fetching {'it' if weights else 'its small files'} from the model hub")
    try:
        info = HfApi().model_info(hub_id, revision=revision or None)
        commit = str(info.sha)
        wanted = [*SMALL_FILES, "*.safetensors"] if weights else SMALL_FILES
        folder = Path(snapshot_download(hub_id, revision=commit, allow_patterns=wanted, ignore_patterns=_COPIES))
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise BadInput(
            f"There is no folder {part!r}, and no checkpoint of that name could be had from the model hub: "
            f"{str(error).splitlines()[0][:300]}. Give a folder with {SIDECAR} in it, one with `av` and `ar` in it, or "
            "a hub id that this machine can reach."
        ) from error
    return Place(hub_id, "", "", folder, frozenset(s.rfilename for s in info.siblings or []), (hub_id, commit, ""))


def _part(whole: Place, role: str, label: str, inside: str = "") -> Place:
    """The half whose files are those of one folder (`av/`) of a place, or those at its top."""
    names = {file.removeprefix(inside) for file in whole.files if file.startswith(inside)}
    return replace(
        whole,
        name=whole.name + (f"/{role}" if inside else ""),
        role=role,
        label=label,
        folder=whole.folder / inside,
        files=frozenset(n for n in names if "/" not in n and not any(fnmatch(n, copy) for copy in _COPIES)),
        remote=whole.remote and (*whole.remote[:2], inside),
    )
