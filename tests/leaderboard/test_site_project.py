"""The board's site names its project: by a link where the package states an address, and in words where it does not."""

from __future__ import annotations

import importlib.metadata
from email.message import Message
from pathlib import Path

import pytest
from nlabench.leaderboard.site.pages import write_site


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([], "README.md and docs/leaderboard.md in its source"),
        ([("Home-page", "https://example.org/home")], '<a href="https://example.org/home">nlabench</a>'),
        (
            [("Home-page", "https://example.org/home"), ("Project-URL", "Source, https://example.org/source")],
            '<a href="https://example.org/source">nlabench</a>',
        ),
        ([("Home-page", "javascript:alert(1)")], "README.md and docs/leaderboard.md in its source"),
    ],
)
def test_the_footer_links_to_the_address_in_the_packages_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: list[tuple[str, str]], said: str
) -> None:
    stated = Message()
    for name, value in fields:
        stated[name] = value
    monkeypatch.setattr(importlib.metadata, "metadata", lambda _: stated)
    write_site([], {}, [], tmp_path)
    footer = (tmp_path / "compare.html").read_text().partition("<footer>")[2].partition("</footer>")[0]
    assert said in footer
    assert footer.count("<a ") == ("<a " in said)
