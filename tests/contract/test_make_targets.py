"""What the documents tell a newcomer to type is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / ".ci" / "run", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_make_target_that_is_told_exists() -> None:
    wrong = []
    for document in DOCUMENTS:
        told = re.findall(r"(?:`|^|&& )make ([a-z][a-z-]*)", document.read_text("utf-8"), re.MULTILINE)
        wrong += [(document.name, name) for name in told if name not in TARGETS]
    assert wrong == []
