"""Text, Markdown and HTML: every sentence has its footnote, and nothing that agents wrote is markup."""

import re
from html.parser import HTMLParser

from digest_helpers import facts, run, runs, write
from midwatch_services.digest import render
from midwatch_services.digest.decide import Digest
from midwatch_services.digest.facts import Run

EVIL = "<script>alert(1)</script> [click](javascript:alert(1)) `x` <img src=x onerror=y> # head | a"


def evil() -> Digest:
    nasty = Run(
        agent="desk", run_id='r"><b>;rm -rf', first_at="2026-11-25T10:00:00.000000Z", resolution="failed", error=EVIL
    )
    return write(facts(runs=(nasty,), asked={nasty.key: EVIL}))


class Page(HTMLParser):
    """Tags, links and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.attributes |= set(found)
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        if found.get("id"):
            self.ids.add(str(found["id"]))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_each_sentence_ends_in_a_footnote_that_says_how_to_look() -> None:
    digest = write(facts(runs=runs(resolved=1, failed=4)))
    text = render.text(digest)
    body, notes = text.split("Where to look\n")
    for number in range(1, len(digest.sentences) + 1):
        assert f"[{number}]" in body
        assert re.search(rf"^\[{number}\] .*: midwatch (show|runs|queue|alerts) ", notes, re.MULTILINE)
    assert "[2] 4 runs, such as r-1, r-2, r-3: midwatch show r-1" in notes
    assert max(map(len, body.splitlines())) <= render.WIDTH


def test_with_a_console_every_run_is_a_link() -> None:
    digest = write(facts(runs=(run(1),)))
    assert "https://ops.example/runs/desk/r-1" in render.text(digest, "https://ops.example/")
    assert "([run](https://ops.example/runs/desk/r-1))" in render.markdown(digest, "https://ops.example")
    page = Page(render.html(digest, "https://ops.example"))
    assert "https://ops.example/runs/desk/r-1" in page.links


def test_the_page_loads_nothing_and_its_footnotes_lead_somewhere() -> None:
    page = Page(render.html(write(facts(runs=runs(resolved=2, handed_off=1)))))
    assert not {"img", "script", "link", "iframe"} & set(page.tags)
    assert "src" not in page.attributes
    assert (page.tags.count("h1"), page.tags.count("main")) == (1, 1)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)


def test_what_customers_wrote_is_no_markup_in_html() -> None:
    page = Page(render.html(evil()))
    assert not {"script", "img", "b"} & set(page.tags)
    assert not {"onerror"} & page.attributes
    assert all(link.startswith("#") for link in page.links)
    console = Page(render.html(evil(), "https://ops.example"))
    assert "https://ops.example/runs/desk/r%22%3E%3Cb%3E%3Brm%20-rf" in console.links


def test_what_customers_wrote_is_no_markup_in_markdown() -> None:
    markdown = render.markdown(evil())
    without = re.sub(r"\\.", "", markdown)
    assert "<" not in re.sub(r"`[^`]*`", "", without)
    assert not re.search(r"\]\(", without)


def test_a_command_can_be_pasted_whatever_the_id_is() -> None:
    assert "midwatch show 'r\"><b>;rm -rf'" in render.text(evil())


def test_a_chat_gets_whole_sentences_from_the_top_and_where_the_rest_is() -> None:
    digest = write(facts(runs=tuple(run(number, "failed", error=f"reason {number}") for number in range(40))))
    brief = render.brief(digest)
    assert len(brief) <= render.BRIEF
    assert brief.startswith(
        "40 runs began on this day: 40 failed.\n\nWhat went wrong and was stopped\n• 40 runs failed."
    )
    assert brief.endswith("The rest: midwatch digest --date 2026-11-25 --agent desk")
