"""Facts about packs: what they hold, what they refuse, and that they come back as they were written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from nlabench.benchmark.concepts import (
    FEWEST_NEUTRAL,
    FEWEST_TEXTS,
    NEUTRAL_PURPOSES,
    PURPOSES,
    TEXTS_PER_PURPOSE,
    ConceptPack,
    load_dataset_pack,
    load_pack,
    pack_from_rows,
    write_pack,
)
from nlabench.benchmark.errors import BadInput

Line = dict[str, Any]
NEUTRAL = [f"Ordinary sentence number {i}." for i in range(80)]
COLUMNS = {"text": "sentence", "concept": "label", "family": "group"}
ROWS = [
    {"sentence": f"Sentence {i} about {label}.", "label": label, "group": "weather"}
    for label in ("rain", "snow")
    for i in range(44)
]


def smallest_pack() -> list[Line]:
    """The lines of a pack that is just large enough to load."""
    lines: list[Line] = []
    for name in ("rain", "snow"):
        head = {"name": name, "title": name, "description": f"The text is about {name}.", "family": "weather"}
        lines.append({"kind": "concept", **head})
        lines += [
            {"kind": "text", "concept": name, "purpose": purpose, "text": f"{name} {purpose} {i}"}
            for purpose, fewest in FEWEST_TEXTS.items()
            for i in range(fewest)
        ]
    lines += [
        {"kind": "neutral", "purpose": purpose, "text": f"{purpose} {i}"}
        for purpose in NEUTRAL_PURPOSES
        for i in range(FEWEST_NEUTRAL)
    ]
    return lines


def write_lines(file: Path, lines: list[Line]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def texts_of(pack: ConceptPack) -> list[str]:
    of_concepts = [t.text for c in pack.concepts for p in PURPOSES for t in c.texts[p]]
    return of_concepts + [t.text for p in NEUTRAL_PURPOSES for t in pack.neutral[p]]


@pytest.fixture(scope="module")
def core() -> ConceptPack:
    return load_pack()


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what `datasets` converts out of the home folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_built_in_pack_holds_the_promised_number_of_texts(core: ConceptPack) -> None:
    assert len(core.concepts) >= 40
    assert len(set(core.families)) >= 7
    for concept in core.concepts:
        assert {p: len(concept.texts[p]) for p in PURPOSES} == TEXTS_PER_PURPOSE


def test_ids_of_texts_are_unique_and_say_what_the_text_is_for(core: ConceptPack) -> None:
    ids = [t.id for c in core.concepts for p in PURPOSES for t in c.texts[p]]
    ids += [t.id for p in NEUTRAL_PURPOSES for t in core.neutral[p]]
    assert len(set(ids)) == len(ids)
    assert core.concepts[0].texts["natural"][3].id == f"{core.concepts[0].name}/natural/3"


def test_half_the_validation_texts_name_their_concept_and_half_are_it(core: ConceptPack) -> None:
    for concept in core.concepts:
        assert sorted(str(t.form) for t in concept.texts["validation"]) == ["being", "being", "naming", "naming"]


def test_the_smallest_pack_loads(tmp_path: Path) -> None:
    pack = load_pack(write_lines(tmp_path / "small.jsonl", smallest_pack()))
    assert (pack.name, pack.names) == ("small", ["rain", "snow"])


def test_a_folder_of_files_is_one_pack(tmp_path: Path) -> None:
    lines = smallest_pack()
    write_lines(tmp_path / "b.jsonl", lines[:20])
    write_lines(tmp_path / "a.jsonl", lines[20:])
    assert load_pack(tmp_path).names == ["rain", "snow"]


def drop(**fields: str) -> Callable[[list[Line]], list[Line]]:
    """Leave out the first line with these fields."""

    def change(lines: list[Line]) -> list[Line]:
        first = next(i for i, line in enumerate(lines) if fields.items() <= line.items())
        return lines[:first] + lines[first + 1 :]

    return change


def without_snow(lines: list[Line]) -> list[Line]:
    return [line for line in lines if "snow" not in (line.get("name"), line.get("concept"))]


BAD: dict[str, tuple[Callable[[list[Line]], list[Line]], str]] = {
    "one concept": (without_snow, r"has 1 concept\(s\).*at least two"),
    "no concept": (lambda lines: [line for line in lines if line["kind"] == "neutral"], r"has 0 concept\(s\)"),
    "a name twice": (lambda lines: [*lines, lines[0]], "'rain' more than once"),
    "a text of an unknown concept": (
        lambda lines: [*lines, {"kind": "text", "concept": "hail", "purpose": "probe", "text": "Hail fell."}],
        "concept 'hail', which it does not define",
    ),
    "too few neutral prompts": (drop(kind="neutral", purpose="readout"), "7 neutral readout prompts; .* at least 8"),
    "an unknown purpose": (
        lambda lines: [*lines, {"kind": "neutral", "purpose": "spare", "text": "A sentence."}],
        rf"line {len(smallest_pack()) + 1}: .*purpose",
    ),
    "an unknown field": (
        lambda lines: [{**lines[0], "colour": "red"}, *lines[1:]], "line 1: .*colour",
    ),
    "an empty text": (
        lambda lines: [*lines, {"kind": "neutral", "purpose": "readout", "text": ""}], "at least 1 character",
    ),
} | {
    f"too few {purpose} texts": (
        drop(concept="snow", purpose=purpose), f"'snow' of pack 'bad' has {fewest - 1} {purpose} texts"
    )
    for purpose, fewest in FEWEST_TEXTS.items()
    if fewest
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_pack_is_refused_by_the_name_of_what_is_bad(tmp_path: Path, bad: str) -> None:
    change, said = BAD[bad]
    with pytest.raises(BadInput, match=said):
        load_pack(write_lines(tmp_path / "bad.jsonl", change(smallest_pack())))


def test_a_malformed_line_is_named_by_file_and_number(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "bad.jsonl", smallest_pack())
    lines = file.read_text().split("\n")
    lines[2] = lines[2][:-5]
    file.write_text("\n".join(["", *lines]))  # an empty line counts, as an editor counts it
    with pytest.raises(BadInput, match=r"bad\.jsonl, line 4: Invalid JSON"):
        load_pack(file)


@pytest.mark.parametrize("absent", ["nowhere.jsonl", "empty_folder"])
def test_a_pack_that_is_not_there_is_named(tmp_path: Path, absent: str) -> None:
    (tmp_path / "empty_folder").mkdir()
    with pytest.raises(BadInput, match=rf"no concept pack at .*{absent}.*'core'"):
        load_pack(tmp_path / absent)


def test_a_written_pack_comes_back_with_the_same_fingerprint(core: ConceptPack, tmp_path: Path) -> None:
    write_pack(core, tmp_path / "core.jsonl")
    back = load_pack(tmp_path / "core.jsonl")
    assert back == core
    assert back.fingerprint() == core.fingerprint()


@pytest.mark.parametrize(
    "awkward", ['quotes " and \\ slashes', "two\nlines\tand a tab", "a line\u2028separator", "naïve 字 🙂"]
)
def test_awkward_characters_survive_the_round_trip(tmp_path: Path, awkward: str) -> None:
    lines = smallest_pack()
    lines[1]["text"] = awkward
    pack = load_pack(write_lines(tmp_path / "a.jsonl", lines))
    write_pack(pack, tmp_path / "b.jsonl")
    assert load_pack(tmp_path / "b.jsonl").concepts[0].texts["direction"][0].text == awkward


def test_the_fingerprint_changes_with_every_text_and_every_field(core: ConceptPack) -> None:
    first = core.concepts[0]
    variants = [core]
    for purpose in PURPOSES:
        changed = (replace(first.texts[purpose][0], text="Another text."), *first.texts[purpose][1:])
        other = replace(first, texts={**first.texts, purpose: changed})
        variants.append(replace(core, concepts=(other, *core.concepts[1:])))
    for kind in NEUTRAL_PURPOSES:
        changed = (replace(core.neutral[kind][0], text="Another prompt."), *core.neutral[kind][1:])
        variants.append(replace(core, neutral={**core.neutral, kind: changed}))
    fields = ("name", "title", "description", "family", "opposite")
    renamed = [replace(first, **{field: "other"}) for field in fields]
    variants += [replace(core, concepts=(other, *core.concepts[1:])) for other in renamed]
    variants.append(replace(core, concepts=core.concepts[::-1]))
    assert len({pack.fingerprint() for pack in variants}) == len(variants)


def test_the_fingerprint_does_not_depend_on_what_the_pack_is_called(core: ConceptPack) -> None:
    assert replace(core, name="mine").fingerprint() == core.fingerprint()


def test_a_selection_spans_the_families_and_keeps_their_order(core: ConceptPack) -> None:
    families = list(dict.fromkeys(core.families))
    assert core.select(len(families)).families == families
    assert set(core.select(3).families) == set(families[:3])
    twice = core.select(2 * len(families)).families
    assert twice == [family for family in families for _ in range(2)]


def test_a_selection_of_everything_is_the_pack(core: ConceptPack) -> None:
    assert core.select(len(core.concepts)) == core
    assert core.select(1000) == core


def test_a_selected_concept_forgets_an_opposite_that_was_left_out(core: ConceptPack) -> None:
    for n in (1, 8, 17, 51):
        chosen = core.select(n)
        assert len(chosen.concepts) == n
        assert all(c.opposite is None or c.opposite in chosen.names for c in chosen.concepts)
    assert core.select(1).concepts[0].opposite is None
    assert core.select(len(core.concepts)).concepts[0].opposite == core.concepts[0].opposite


def test_rows_are_split_in_the_shares_of_the_built_in_pack() -> None:
    pack = pack_from_rows("weather", ROWS, NEUTRAL, columns=COLUMNS)
    for concept in pack.concepts:
        assert {p: len(concept.texts[p]) for p in PURPOSES} == TEXTS_PER_PURPOSE
    assert [len(pack.neutral[kind]) for kind in NEUTRAL_PURPOSES] == [20, 20, 20, 20]


def test_every_row_serves_one_purpose_once() -> None:
    pack = pack_from_rows("weather", ROWS + ROWS[:10], NEUTRAL, columns=COLUMNS)
    assert sorted(texts_of(pack)) == sorted([row["sentence"] for row in ROWS] + NEUTRAL)


@pytest.mark.parametrize("n", [12, 25, 43, 45, 101])
def test_shares_hold_to_within_a_text_for_any_number_of_rows(n: int) -> None:
    rows = [{"sentence": f"{label} {i}", "label": label} for label in ("rain", "snow") for i in range(n)]
    pack = pack_from_rows("weather", rows, NEUTRAL, columns={"text": "sentence", "concept": "label"})
    for purpose, share in TEXTS_PER_PURPOSE.items():
        assert abs(len(pack.concepts[0].texts[purpose]) - n * share / 44) <= 1


def test_the_split_is_decided_by_the_seed() -> None:
    same = [pack_from_rows("weather", ROWS, NEUTRAL, columns=COLUMNS, seed=3) for _ in range(2)]
    other = pack_from_rows("weather", ROWS, NEUTRAL, columns=COLUMNS, seed=4)
    assert same[0] == same[1]
    assert same[0].fingerprint() != other.fingerprint()
    assert sorted(texts_of(same[0])) == sorted(texts_of(other))


def test_descriptions_titles_and_families_come_from_their_columns_or_a_default() -> None:
    rows = [{**row, "about": f"The text speaks of {row['label']}."} for row in ROWS]
    told = pack_from_rows("weather", rows, NEUTRAL, columns={**COLUMNS, "description": "about"}).concepts[0]
    assert (told.name, told.title, told.family) == ("rain", "rain", "weather")
    assert told.description == "The text speaks of rain."
    bare = pack_from_rows("weather", ROWS, NEUTRAL, columns={"text": "sentence", "concept": "label"}).concepts[0]
    assert (bare.description, bare.family) == ("The text is about rain.", "all")


@pytest.mark.parametrize("key", ["text", "concept", "family"])
def test_a_missing_column_is_named_beside_those_that_are_there(key: str) -> None:
    with pytest.raises(BadInput, match=r"no column 'absent'; it has sentence, label, group"):
        pack_from_rows("weather", ROWS, NEUTRAL, columns={**COLUMNS, key: "absent"})


def test_a_concept_with_too_few_rows_is_named() -> None:
    with pytest.raises(BadInput, match="'snow' of pack 'weather' has 2 direction texts"):
        pack_from_rows("weather", ROWS[:49], NEUTRAL, columns=COLUMNS)


def test_rows_without_enough_neutral_sentences_are_refused() -> None:
    with pytest.raises(BadInput, match="neutral direction prompts"):
        pack_from_rows("weather", ROWS, NEUTRAL[:20], columns=COLUMNS)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet"])
@pytest.mark.usefixtures("datasets_cache")
def test_a_local_dataset_makes_the_pack_that_its_rows_make(tmp_path: Path, suffix: str) -> None:
    frame, file = pd.DataFrame(ROWS), tmp_path / f"weather.{suffix}"
    if suffix == "csv":
        frame.to_csv(file, index=False)
    elif suffix == "parquet":
        frame.to_parquet(file)
    else:
        frame.to_json(file, orient="records", lines=suffix == "jsonl")
    pack = load_dataset_pack(str(file), columns=COLUMNS, neutral=NEUTRAL, seed=5)
    assert pack == pack_from_rows("weather", ROWS, NEUTRAL, columns=COLUMNS, seed=5)


@pytest.mark.usefixtures("datasets_cache")
def test_a_missing_column_of_a_dataset_is_named(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_csv(tmp_path / "weather.csv", index=False)
    with pytest.raises(BadInput, match="no column 'text'; it has sentence, label, group"):
        load_dataset_pack(str(tmp_path / "weather.csv"), columns={"text": "text", "concept": "label"}, neutral=NEUTRAL)


@pytest.mark.parametrize("name", ["empty.csv", "empty.parquet"])
@pytest.mark.usefixtures("datasets_cache")
def test_a_file_that_is_no_dataset_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(BadInput, match=rf"{name}.*could not be loaded"):
        load_dataset_pack(str(tmp_path / name), columns=COLUMNS, neutral=NEUTRAL)


@pytest.mark.usefixtures("datasets_cache")
def test_a_dataset_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_csv(tmp_path / "weather.csv", index=False)
    with pytest.raises(BadInput, match="split 'dev'"):
        load_dataset_pack(str(tmp_path / "weather.csv"), columns=COLUMNS, neutral=NEUTRAL, split="dev")
