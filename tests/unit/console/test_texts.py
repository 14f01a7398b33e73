"""The catalogue of texts, and that every page finds what it says in it."""

import re
from importlib import resources
from pathlib import Path

import pytest

from midwatch_services.console import texts
from midwatch_services.console.access.roles import Role
from midwatch_services.console.server import _OWN, _SAID
from midwatch_services.console.view import NAVIGATION, environment

FOLDER = Path(str(resources.files("midwatch_services.console")))
_NAMED = re.compile(r"""\bt\(\s*["']([a-z0-9_.-]+)["']""")


def _entry(name: str) -> object:
    found: object = texts.load()._words
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def test_every_text_that_a_template_names_is_there() -> None:
    named = {name for path in FOLDER.rglob("templates/**/*.html") for name in _NAMED.findall(path.read_text("utf-8"))}
    assert len(named) > 30
    assert sorted(name for name in named if not name.endswith((".", "_")) and _entry(name) is None) == []


def test_every_page_role_and_problem_has_its_words() -> None:
    t = texts.load()
    assert all(t.has(f"base.pages.{name}") for name in NAVIGATION)
    assert all(t.has(f"base.roles.{role}") for role in Role)
    assert all(t.has(f"problem.{kind}.{part}") for kind in (*_SAID, "other", *_OWN) for part in ("title", "text"))


def test_a_count_chooses_between_one_and_many() -> None:
    t = texts.Texts("en", {"page": {"runs": {"one": "One run", "many": "{count} runs"}, "by": "by {who}"}})
    assert (t("page.runs", count=1), t("page.runs", count=1200)) == ("One run", "1,200 runs")
    assert t("page.by", who="{who}") == "by {who}"
    with pytest.raises(texts.NoText, match=r"no text 'page\.none'"):
        t("page.none")


def test_no_template_trusts_anything_or_holds_script_or_style() -> None:
    for path in FOLDER.rglob("templates/**/*.html"):
        text = path.read_text("utf-8")
        assert not re.search(r"\|\s*safe\b|<style|\sstyle=|\son[a-z]+=|javascript:|autoescape", text), path.name
        assert not re.search(r"<script(?! src=)", text), path.name
        assert not re.search(r"""(?:src|href|action)=["']?(?:https?:)?//""", text), path.name
    assert environment().autoescape is True
