"""The protocol under test, and what is refused at its border."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from nlabench.benchmark.activations import ActivationBatch, Site
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.store import array_fingerprint
from nlabench.benchmark.verbalizers.average_direction import AverageDirection
from nlabench.benchmark.verbalizers.base import (
    LONGEST_TEXT,
    Verbalization,
    VerbalizerCard,
    check_made_for,
    check_texts,
    hash_code,
    strip_controls,
    wrap_function,
)
from nlabench.benchmark.verbalizers.from_file import read_texts
from nlabench.benchmark.verbalizers.nearest_text import NearestText
from nlabench.benchmark.verbalizers.registry import find_verbalizer, load_verbalizer
from nlabench.benchmark.verbalizing import verbalizer_fingerprint

SITE = Site("some-subject", 3, 4)
BATCH = ActivationBatch(torch.eye(4), SITE)


def test_a_bare_function_is_enough() -> None:
    wrapped = wrap_function(lambda vectors: [f"vector of norm {float(v.norm()):.0f}" for v in vectors], name="mine")
    assert list(wrapped.verbalize(BATCH)) == ["vector of norm 1"] * 4


def test_an_edited_function_has_another_version() -> None:
    def first(vectors: list[torch.Tensor]) -> list[str]:
        return ["a" for _ in vectors]

    def second(vectors: list[torch.Tensor]) -> list[str]:
        return ["b" for _ in vectors]

    assert wrap_function(first, "f").card != wrap_function(second, "f").card


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (["one", "two"], "given 4 vectors and returned 2 texts"),
        ("a string is no list of texts", "returned a str"),
        (None, "returned a NoneType"),
        (["a", "b", 3, "d"], "returned a int for item 2"),
        (["a", "b", "c" * (LONGEST_TEXT + 1), "d"], "20,001 characters for item 2"),
        (["a", "b", "c\x00", "d"], "U+0000 for item 2"),
        (["a", "\x1b[31mred", "c", "d"], "U+001B for item 1"),
        (["a", "b", "c", Verbalization("d", samples=("e", "f\x00"))], "U+0000 for item 3"),
    ],
)
def test_what_is_not_one_text_per_vector_is_refused(returned: object, said: str) -> None:
    with pytest.raises(BadInput, match=said.replace("+", r"\+")) as error:
        check_texts("mine", returned, 4)
    assert "'mine'" in str(error.value)


def test_newlines_and_any_script_are_fine() -> None:
    texts = ["two\nlines\tand a tab", "日本語", "עברית", "👩‍👩‍👧"]
    assert [v.text for v in check_texts("mine", texts, 4)] == texts


def test_stripping_leaves_nothing_that_would_be_refused() -> None:
    assert strip_controls(" a\x00b\x1b\n") == "ab"


@pytest.mark.parametrize(
    "card",
    [
        VerbalizerCard(name="v", subject="other/model", layer=20, d_model=3584),
        VerbalizerCard(name="v", layer=2),
        VerbalizerCard(name="v", d_model=5),
    ],
)
def test_a_verbalizer_made_for_another_subject_site_or_width_is_refused(card: VerbalizerCard) -> None:
    with pytest.raises(BadInput, match=r"made for .* this run reads some-subject at block 3 \(4\)"):
        check_made_for(card, SITE)


def test_a_verbalizer_that_names_no_subject_serves_all() -> None:
    assert check_made_for(VerbalizerCard(name="v"), SITE) is None
    assert check_made_for(VerbalizerCard(name="v", subject="some-subject", layer=3, d_model=4), SITE) is None


def test_average_direction_says_one_text_and_asks_once() -> None:
    asked = []

    def describe(vectors: list[torch.Tensor]) -> list[str]:
        asked.extend(vectors)
        return [f"sum {float(v.sum()):.2f}" for v in vectors]

    floor = AverageDirection(
        VerbalizerCard(name="average", role="floor"),
        wrap_function(describe),
        ActivationBatch(torch.full((1, 4), 0.5), SITE),
    )
    texts = [v.text for v in floor.verbalize(BATCH)] + [v.text for v in floor.verbalize(BATCH)]
    assert set(texts) == {"sum 2.00"}
    assert len(asked) == 1


def test_nearest_text_finds_the_text_whose_direction_was_planted() -> None:
    bank = torch.eye(4)
    verbalizer = NearestText(VerbalizerCard(name="nearest"), bank, ["a", "b", "c", "d"], centre=torch.full((4,), 10.0))
    planted = torch.full((2, 4), 10.0) + 3 * bank[[2, 0]] + 0.1
    assert [v.text for v in verbalizer.verbalize(ActivationBatch(planted, SITE))] == ["c", "a"]


class TestTextsFromFile:
    """`verbalizations.jsonl`, as it comes back from somebody else's tool."""

    ids: ClassVar = {f"id{i}": array_fingerprint(vector.numpy()) for i, vector in enumerate(torch.eye(4))}

    def read(self, folder: Path, lines: list[str]) -> list[str]:
        file = folder / "texts.jsonl"
        file.write_text("\n".join(lines), encoding="utf-8")
        found = read_texts(file, self.ids, VerbalizerCard(name="theirs")).verbalize(BATCH)
        return [f"failed: {v.error}" if v.error else v.text for v in found]

    def test_texts_find_their_vectors_in_any_order(self, tmp_path: Path) -> None:
        lines = [json.dumps({"item_id": f"id{i}", "text": f"text {i}"}) for i in (2, 0, 3, 1)]
        assert self.read(tmp_path, lines) == ["text 0", "text 1", "text 2", "text 3"]

    def test_a_null_text_is_a_failure_and_no_text(self, tmp_path: Path) -> None:
        lines = [json.dumps({"item_id": f"id{i}", "text": None if i == 1 else "t"}) for i in range(4)]
        assert self.read(tmp_path, lines) == ["t", "failed: no text was given", "t", "t"]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda rows: rows[:3], "texts for 3 of 4 items; missing are id3"),
            (lambda rows: [*rows, '{"item_id": "id9", "text": "t"}'], "line 5: there is no item 'id9'"),
            (lambda rows: [*rows, rows[0]], "line 5: item 'id0' was given before"),
            (lambda rows: [*rows, "{oops"], "line 5 is not JSON"),
            (lambda rows: [*rows, '["id0", "t"]'], "line 5: .* has not the form"),
            (lambda rows: [rows[0].replace('"t"', "7"), *rows[1:]], "returned a int for item id0"),
            (lambda rows: [rows[0].replace('"t"', '"\\u0007"'), *rows[1:]], r"U\+0007 for item id0"),
        ],
    )
    def test_a_file_that_does_not_fit_is_refused_with_its_line(self, tmp_path: Path, change, said: str) -> None:
        rows = [json.dumps({"item_id": f"id{i}", "text": "t"}) for i in range(4)]
        with pytest.raises(BadInput, match=said):
            self.read(tmp_path, change(rows))


class _Loud:
    """A verbalizer of somebody else's, with a card of their choosing."""

    def __init__(self, card: VerbalizerCard, word: str = "loud") -> None:
        self.card, self.word = card, word

    def verbalize(self, batch: ActivationBatch) -> list[str]:
        return [self.word] * len(batch)


class _AnyStudy:
    site = SITE


@pytest.mark.parametrize(
    "card",
    [VerbalizerCard(name="mine", role="ceiling"), VerbalizerCard(name="constant"), VerbalizerCard(name="logit-lens:x")],
)
def test_nobody_takes_the_benchmarks_roles_or_names(card: VerbalizerCard) -> None:
    with pytest.raises(BadInput, match="are the benchmark's own"):
        load_verbalizer(_Loud(card), _AnyStudy())  # type: ignore[arg-type]


def test_whatever_changes_a_users_verbalizer_changes_its_fingerprint() -> None:
    card = VerbalizerCard(name="mine")
    assert verbalizer_fingerprint(_Loud(card)) == verbalizer_fingerprint(_Loud(card))
    assert verbalizer_fingerprint(_Loud(card)) != verbalizer_fingerprint(_Loud(card, "quiet"))

    def closed_over(word: str):
        return lambda vectors: [word for _ in vectors]

    assert wrap_function(closed_over("a"), "f").card == wrap_function(closed_over("a"), "f").card
    assert wrap_function(closed_over("a"), "f").card != wrap_function(closed_over("b"), "f").card


def test_an_edited_helper_beside_a_function_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helper_module.py").write_text("WORD = 'old'\n")
    (tmp_path / "user_module.py").write_text(
        "import helper_module\ndef describe(vectors):\n    return [helper_module.WORD for _ in vectors]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    function = importlib.import_module("user_module").describe
    before = hash_code(function)
    assert hash_code(function) == before
    (tmp_path / "helper_module.py").write_text("WORD = 'new'\n")
    assert hash_code(function) != before


def test_a_function_in_the_current_folder_has_one_hash_in_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in_current_folder.py").write_text("def describe(vectors):\n    return ['a text'] * len(vectors)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("in_current_folder")
    first = module.describe
    second = importlib.reload(module).describe  # another object, as another process has it
    assert second is not first
    assert hash_code(second) == hash_code(first)


def test_two_files_of_texts_are_two_verbalizers(tmp_path: Path) -> None:
    cards = []
    for word in ("one", "two"):
        file = tmp_path / f"{word}.jsonl"
        file.write_text("\n".join(json.dumps({"item_id": i, "text": word}) for i in TestTextsFromFile.ids))
        cards.append(read_texts(file, TestTextsFromFile.ids, VerbalizerCard(name="theirs")).card)
    assert cards[0] != cards[1]


def test_any_callable_has_a_name() -> None:
    import functools

    partial = functools.partial(lambda vectors, word: [word] * len(vectors), word="x")
    assert wrap_function(partial).card.name == "partial"


@pytest.mark.parametrize(
    "spec",
    ["nla:no/such/folder", "nla:reference?samples=3", "http://127.0.0.1:9/elsewhere", "https://host/describe?colour=1"],
)
def test_an_argument_that_cannot_be_used_is_refused_before_any_work(spec: str) -> None:
    with pytest.raises(BadInput, match=r"Give|Add|Known"):
        find_verbalizer(spec)
