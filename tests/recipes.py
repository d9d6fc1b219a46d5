"""The recipes of docs/clusters.md, as tests run them."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "clusters.md"


def recipe(section: str, language: str) -> list[str]:
    """Return the blocks of code in one language under a heading of the page, in their order."""
    text = PAGE.read_text()
    (body,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    blocks = re.findall(rf"^```{language}\n(.*?)^```", body, re.MULTILINE | re.DOTALL)
    assert blocks, f"docs/clusters.md has no {language} under {section!r}"
    return blocks
