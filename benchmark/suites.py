"""Suites: how much of everything a run takes. `quick` and `standard` are built in; a TOML file makes another."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import BadInput
from .steering import Contrast, Method


class Suite(BaseModel):
    """The settings that decide which items a run makes. Everything here is recorded in the result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str = "1"
    tasks: tuple[str, ...] = ("concept_identification", "dose_response", "confabulation")
    readers: tuple[str, ...] = Field(
        default=("last-token",), description="readers of text that run beside every verbalizer"
    )
    n_concepts: int = Field(ge=2, description="concepts taken from the pack, the families in turn")
    natural_per_concept: int = Field(ge=1, description="natural texts read at a function word, per concept")
    final_per_concept: int = Field(ge=0, description="natural texts read at their last token, per concept")
    readout_prompts: int = Field(ge=2, description="neutral prompts that steered items are read in")
    prompts_per_concept: int = Field(ge=1, description="readout prompts that a concept is crossed with on the grid")
    strengths: tuple[float, ...] = Field(min_length=2, description="the grid of r, without 0 (that is the neutral arm)")
    upstream_strengths: tuple[float, ...] = Field(description="the grid of r for upstream injection; may be empty")
    upstream_pairs_per_concept: int = Field(ge=0, description="token-matched pairs with an upstream steered item")
    mid_per_concept: int = Field(ge=0, description="natural texts read with text to follow, per concept")
    mid_strengths: tuple[float, ...] = Field(description="strengths of steered items with text to follow; may be empty")
    gaussian_items: int = Field(ge=0)
    gate_requests: int = Field(ge=2, le=8, description="chat requests of the behaviour gate")
    gate_strengths: tuple[float, ...] = Field(min_length=1)
    gate_permuted_draws: int = Field(
        ge=2, le=8, description="permuted directions that a concept's is held against; few find little"
    )
    method: Method = "difference_of_means"
    contrast: Contrast = "rest"
    seed: int = Field(default=0, ge=0)

    @field_validator("strengths", "upstream_strengths", "mid_strengths", "gate_strengths")
    @classmethod
    def _rising(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        if any(r <= 0 for r in strengths) or sorted(set(strengths)) != list(strengths):
            raise ValueError(f"strengths rise and are above 0 (r = 0 is the neutral arm), not {list(strengths)}")
        return strengths


QUICK = Suite(
    name="quick",
    version="2",
    n_concepts=16,
    natural_per_concept=4,
    final_per_concept=1,
    readout_prompts=12,
    prompts_per_concept=2,
    strengths=(0.1, 0.3, 0.5, 1.0, 2.0),
    upstream_strengths=(0.3, 1.0),
    upstream_pairs_per_concept=2,
    mid_per_concept=0,
    mid_strengths=(),
    gaussian_items=12,
    gate_requests=6,
    gate_strengths=(0.1, 0.3, 0.5, 1.0),
    gate_permuted_draws=8,
)

STANDARD = Suite(
    name="standard",
    version="3",
    tasks=(
        "concept_identification",
        "dose_response",
        "confabulation",
        "content_retention",
        "reconstruction",
        "functional_round_trip",
        "off_manifold_detection",
        "privileged_information",
        "self_consistency",
    ),
    readers=("last-token", "last-four", "prompt-retrieval", "prompt-reader"),
    n_concepts=52,
    natural_per_concept=8,
    final_per_concept=4,
    readout_prompts=24,
    prompts_per_concept=6,
    strengths=(0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0),
    upstream_strengths=(0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0),
    upstream_pairs_per_concept=4,
    mid_per_concept=4,
    mid_strengths=(0.3, 1.0),
    gaussian_items=48,
    gate_requests=8,
    gate_strengths=(0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0),
    gate_permuted_draws=8,
)

SUITES = {suite.name: suite for suite in (QUICK, STANDARD)}


def load_suite(spec: str) -> Suite:
    """`quick`, `standard`, or a TOML file that names every setting (`base = "quick"` fills in the rest).

    Raises:
        BadInput: no such suite or file, or a setting that is unknown or out of range.
    """
    if spec in SUITES:
        return SUITES[spec]
    file = Path(spec)
    if not file.is_file():
        raise BadInput(f"There is no suite {spec!r}. Built in are {', '.join(SUITES)}; or give a TOML file.")
    try:
        settings = tomllib.loads(file.read_text())
        base = settings.pop("base", None)
        known = SUITES[base].model_dump() if base else {}
        return Suite.model_validate({**known, "name": file.stem, **settings})
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise BadInput(f"The suite file {file} cannot be read: {error}. It is TOML, with base = 'quick'.") from error
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise BadInput(
            f"The suite file {file} sets {name!r} wrongly: {first['msg']}. Settings are "
            f"{', '.join(Suite.model_fields)}."
        ) from error
