"""A submission as a dataset repository of a hub, with its scores as model-index metadata."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from huggingface_hub import EvalResult, HfApi
from huggingface_hub.repocard_data import ModelCardData

from ..benchmark.errors import BadInput
from .entries import FILES, MANIFEST, Entry, read_entry

#: What stands in the metadata: (metric's name, task, metric, arm).
SCORES = (
    ("AUROC, natural", "concept_identification", "auroc_in_pairs", "natural"),
    ("AUROC, steered at matched evidence", "concept_identification", "auroc_in_pairs", "steered"),
)


def push(folder: Path, repo: str, *, dry_run: bool = True) -> list[str]:
    """Make the dataset repository `repo` (owner/name) of a submission; gives the names of its files.

    dry_run: nothing is sent. Raises BadInput where the folder is no submission.
    """
    entry = read_entry(folder)
    if entry.private:
        raise BadInput(f"{folder} is an entry of a private pack; it goes to a maintainer's store alone, and to no hub.")
    readme = write_readme(entry)
    names = ["README.md", *FILES, MANIFEST]
    if dry_run:
        return names
    api = HfApi()
    api.create_repo(repo, repo_type="dataset", exist_ok=True)
    with tempfile.TemporaryDirectory() as making:
        (Path(making) / "README.md").write_text(readme, encoding="utf-8")
        for name in names[1:]:
            (Path(making) / name).write_bytes((folder / name).read_bytes())
        api.upload_folder(repo_id=repo, repo_type="dataset", folder_path=making, commit_message="nlabench submission")
    return names


def write_readme(entry: Entry) -> str:
    """The repository's README: metadata that a hub reads, then the card. The card's fields are somebody's text."""
    result, card = entry.result, entry.card
    suite = result.provenance.suite
    scores = [
        EvalResult(
            task_type="activation-verbalization",
            dataset_type="nlabench",
            dataset_name=f"nlabench {suite.get('name')} on {result.provenance.subject}",
            dataset_revision=str(suite.get("version")),
            metric_type="auroc",
            metric_name=title,
            metric_value=row.value,
            verified=None,
        )
        for title, task, metric, arm in SCORES
        for row in result.select(
            task=task, metric=metric, arm=arm, verbalizer=card.name, scorer=result.headline_scorer, kind="function",
            group=None, versus=None,
        )
        if row.value is not None and row.injection in ("none", "readout")
    ]  # fmt: skip
    data = ModelCardData(model_name=card.name, eval_results=scores, tags=["nlabench", "activation-verbalizer"])
    lines = [f"# {_plain(card.name)}", "", _plain(card.description), ""]
    for field in ("version", "authors", "link", "licence", "training_data"):
        value = getattr(card, field)
        lines.append(f"- {field.replace('_', ' ')}: {_plain(', '.join(value) if isinstance(value, tuple) else value)}")
    lines += ["", f"An nlabench submission, {entry.status}. Its id is {entry.id}.", ""]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines)


def _plain(text: str) -> str:
    """A text of somebody's as one line that starts no markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(text.split()))
