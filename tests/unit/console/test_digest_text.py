"""A digest that was sent, taken apart again."""

import msgspec

from digest_helpers import facts, runs, write
from midwatch_services.console.digest_text import parse
from midwatch_services.digest.handlers import written

SOME = runs(resolved=2, failed=1)
NASTY = {SOME[2].key: "**bold** [x](http://evil) <b> \\* # - `code` $5 [^1]"}


def test_every_sentence_comes_back_as_it_was_with_and_without_a_console() -> None:
    for digest in (write(facts(agent=None, runs=SOME, asked=NASTY)), write(facts(runs=SOME)), write(facts())):
        for console in (None, "https://console.shop.example/midwatch"):
            told = parse(written(digest, console))
            assert [one.heading for one in told.sections] == digest.headings
            parts = (told.lead, *told.sections, told.closing)
            assert [one.text for part in parts for one in part.sentences] == [one.text for one in digest.sentences]


def test_a_run_that_is_named_is_linked_on_this_console_alone() -> None:
    digest = write(facts(runs=SOME, asked=NASTY))
    for console in (None, "https://console.shop.example"):
        told = parse(written(digest, console))
        wrong = told.sections[0].sentences[0]
        assert wrong.text == "1 run failed."
        assert wrong.links == (("run", "/runs/desk/r-2"),)
        links = [path for part in told.sections for one in part.sentences for _, path in one.links]
        assert all(path.startswith("/runs/desk/r-") for path in links)


def test_reading_takes_a_minute_for_two_hundred_words_and_never_none() -> None:
    data = written(write(facts(runs=SOME)), None)
    assert [parse(msgspec.structs.replace(data, words=words)).minutes for words in (0, 90, 300, 2000)] == [1, 1, 2, 10]
