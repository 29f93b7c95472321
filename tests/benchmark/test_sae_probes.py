"""Facts about sae-probes' labelled texts, read from the real wheel (fetched once, by hash)."""

from __future__ import annotations

import sys

import pytest
from nlabench.benchmark.errors import BadInput
from nlabench.benchmark.loading import load_subject
from nlabench.benchmark.sae_probes import labelled_sets, load_labelled_texts


def test_all_sets_are_listed_in_the_order_of_their_numbers() -> None:
    names = labelled_sets()
    assert len(names) == 163
    assert names[0] == "2_hist_fig_birthyear"
    assert names.index("97_news_class") < names.index("100_news_fake")
    numbers = [int(name.partition("_")[0]) for name in names]
    assert numbers == sorted(numbers)


def test_what_has_no_labels_is_no_set() -> None:
    assert "66_living-room_OOD" in labelled_sets()
    assert "66_living-room_translations" not in labelled_sets()


def test_a_set_is_its_texts_and_their_labels() -> None:
    table = load_labelled_texts("97_news_class")
    assert list(table.columns) == ["prompt", "target"]
    assert table["target"].value_counts().to_dict() == dict.fromkeys(
        ("Politics", "Technology", "Entertainment", "Sport"), 1250
    )
    assert table["prompt"].map(type).eq(str).all()
    assert "Cuba" in table["prompt"][0]


def test_the_package_is_never_imported() -> None:
    load_labelled_texts("21_headline_istrump")
    assert "sae_probes" not in sys.modules


@pytest.mark.parametrize(
    ("name", "near"),
    [("news_class", "97_news_class, 139_news_class_Politics"), ("97_new_clas", "97_news_class"), ("", "163_agnews_2")],
)
def test_an_unknown_name_is_answered_with_those_near_it(name: str, near: str) -> None:
    with pytest.raises(BadInput, match=f"no labelled set '{name}'.*{near}"):
        load_labelled_texts(name)


def test_labelled_texts_are_no_subject() -> None:
    with pytest.raises(BadInput, match="'sae-probes' is a collection of texts, not a language model"):
        load_subject("sae-probes")
