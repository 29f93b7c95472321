"""Facts about an AV's answer: what of it is the text, and which answers are flagged."""

from __future__ import annotations

import pytest
from nlabench.benchmark.nla.explanation import FOREIGN, UNCLOSED, read_explanation


@pytest.mark.parametrize(
    ("answer", "text", "flags"),
    [
        ("<explanation>\nrain, at night\n</explanation>", "rain, at night", ()),
        ("Sure. <explanation>rain</explanation> More.", "rain", ()),
        ("rain</explanation>", "rain", ()),
        ("<explanation>rain fell on the", "rain fell on the", (UNCLOSED,)),
        ("rain fell on the", "rain fell on the", (UNCLOSED,)),
        ("<explanation></explanation>", "", ()),
        ("", "", (UNCLOSED,)),
        ("<explanation>a <text> of\x00 rain</explanation>", "a <text> of rain", ()),
        ("<explanation>这是一个圆圈里的汉字</explanation>", "这是一个圆圈里的汉字", (FOREIGN,)),
        ("<explanation>㈎ ㈎</explanation>", "㈎ ㈎", (FOREIGN,)),
        ("<explanation>the word 猫 means cat</explanation>", "the word 猫 means cat", ()),
        ("<explanation>Дождь идёт</explanation>", "Дождь идёт", ()),
        ("<explanation>123, 45%</explanation>", "123, 45%", ()),
    ],
)
def test_the_text_is_what_stands_between_the_tags(answer: str, text: str, flags: tuple[str, ...]) -> None:
    assert read_explanation(answer) == (text, flags)
