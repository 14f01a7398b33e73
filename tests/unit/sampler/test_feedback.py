"""The weekly note of what people corrected: grouped, counted, and safe in each of its renderings."""

from datetime import UTC, datetime

import pytest

from midwatch_services.reviewer_sampler.judging import render
from midwatch_services.reviewer_sampler.judging.corrections import Correction
from midwatch_services.reviewer_sampler.judging.feedback import (
    MOST,
    Note,
    Texts,
    bounds,
    last_week,
    note,
    texts_of,
    week_of,
)
from midwatch_services.reviewer_sampler.judging.weekly import due_at, summed

EVIL = "<script>alert(1)</script> [x](http://evil) *b* `c`\n# H @everyone"


def corrected(run_id: str, *reasons: str, verdict: str = "fail", better: str = "", said: str = "") -> Correction:
    return Correction(
        agent="desk", run_id=run_id, ticket="T-1", verdict=verdict, version="1", settled_at=0.0, reasons=list(reasons),
        corrected=[better] if better else [], notes=[said] if said else [], by=["ann"],
    )  # fmt: skip


def made(*found: Correction, before: tuple[Correction, ...] = (), **texts: Texts) -> Note:
    return note("desk", "2026-W48", found, before, (len(found) + 5, len(before) + 2), texts)


def test_reasons_come_with_the_most_frequent_first_and_are_held_against_the_week_before() -> None:
    found = made(
        corrected("a", "tone"), corrected("b", "wrong_fact"), corrected("c", "wrong_fact", "tone"),
        corrected("d", "wrong_fact"), corrected("e"), corrected("f", verdict="pass", better="Shorter."),
        before=(corrected("z", "tone"),),
    )  # fmt: skip
    assert [(group.heading, group.count, group.before) for group in found.groups] == [
        ("Wrong fact", 3, 0), ("Tone", 2, 1), ("No reason given", 1, 0), ("Passed, and could be better", 1, 0),
    ]  # fmt: skip
    told = [[entry.run_id for entry in group.entries] for group in found.groups]
    assert told == [["b", "c", "d"], ["a"], ["e"], ["f"]]
    assert found.groups[0].entries[1].also == ("Tone",)
    assert found.lead == "11 runs were settled, 5 of them failed. In the week before: 1 of 3."


def test_the_markdown_of_a_note() -> None:
    found = made(
        corrected("r-1", "wrong_fact", better="Five days.", said="two is wrong"),
        **{"r-1": Texts("When is my refund there?", "In two days.")},
    )
    assert render.markdown(found) == (
        "# What people corrected: desk, week 2026\\-W48\n"
        "\n"
        "6 runs were settled, 1 of them failed. In the week before: 0 of 2.\n"
        "\n"
        "## Wrong fact: 1 run \\(0 in the week before\\)\n"
        "\n"
        "- `midwatch show r-1 --agent desk`, ticket T\\-1\n"
        "  - Asked: When is my refund there?\n"
        "  - The agent said: In two days.\n"
        "  - Better: Five days.\n"
        "  - Note: two is wrong\n"
    )


def test_what_agents_and_customers_wrote_is_no_markup_anywhere() -> None:
    evil = {EVIL: Texts(EVIL, EVIL)}
    found = note("desk", "2026-W48", [corrected(EVIL, EVIL, better=EVIL, said=EVIL)], (), (1, 0), evil)
    page, text, html = render.markdown(found), render.text(found), render.html(found)
    outside = "\n".join(line.split("`", 2)[2] if line.startswith("- `") else line for line in page.splitlines())
    assert "<script>" not in outside
    assert "\\<script\\>alert\\(1\\)\\</script\\> \\[x\\]\\(http://evil\\)" in outside
    assert [line for line in page.splitlines() if line.startswith("# ")] == [
        "# What people corrected: desk, week 2026\\-W48"
    ]
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "\x1b" not in text
    assert all(line.count("`") == 2 for line in page.splitlines() if line.startswith("- `"))


def test_a_note_has_room_for_so_many_runs_and_says_how_many_more_there_are() -> None:
    long = "x" * 10_000
    runs = [corrected(f"r-{n}", "tone", better=long, said=long) for n in range(MOST + 3)]
    found = note("desk", "2026-W48", runs, (), (99, 0), {one.run_id: Texts(long, long) for one in runs})
    assert found.more == 3
    assert render.text(found).endswith(
        "3 more, all in `midwatch reviews feedback --agent desk --week 2026-W48 --json`\n"
    )
    data = summed(found)
    assert len(data.runs) == MOST
    assert len(data.text) + len(data.markdown) + len(data.html) + len(data.brief) < 300_000


def test_a_chat_gets_the_reasons_and_where_the_rest_is() -> None:
    found = made(corrected("r-1", "tone"))
    assert render.brief(found) == (
        "6 runs were settled, 1 of them failed. In the week before: 0 of 2.\n\n• Tone: 1 run (0 in the week before)\n\n"
        "All of it: midwatch reviews feedback --agent desk --week 2026-W48"
    )


def test_question_and_answer_of_a_run() -> None:
    def event(name: str, **data: object) -> dict[str, object]:
        return {"event": name, "data": data}

    talk = [{"role": "user", "content": "Hello"}, {"role": "user", "content": "Where is it?"}]
    events = [
        event("started", input=talk), event("said", by="customer", text="And now?"),
        event("model_called", output="thinking"), event("said", by="agent", text="Here."),
    ]  # fmt: skip
    assert texts_of(events) == Texts("Where is it?", "Here.")
    assert texts_of([*events, event("finished", output="There.")]) == Texts("Where is it?", "There.")
    assert texts_of([event("started", erased="e-1"), event("finished", erased="e-1")]) == Texts()


def test_weeks_are_iso_weeks_in_utc() -> None:
    assert week_of(datetime(2026, 11, 29, 23, 59, tzinfo=UTC)) == "2026-W48"
    assert week_of(datetime(2027, 1, 1, tzinfo=UTC)) == "2026-W53"
    assert last_week(datetime(2026, 11, 30, 0, 1, tzinfo=UTC)) == "2026-W48"
    assert bounds("2026-W48") == (datetime(2026, 11, 23, tzinfo=UTC), datetime(2026, 11, 30, tzinfo=UTC))
    for wrong in ("2026-48", "2026-W54", "now", "2026-W1", "²026-W48", ""):
        with pytest.raises(ValueError):
            bounds(wrong)


def test_a_note_is_due_on_monday_at_the_hour_of_digests_there() -> None:
    assert due_at("2026-W48", "07:00", "Europe/Berlin") == datetime(2026, 11, 30, 6, tzinfo=UTC)
