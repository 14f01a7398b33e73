"""Alerts in the console: from the run log or the bus, taken on by one press, and who was told."""

import asyncio
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from typer.core import TyperGroup

from console_helpers import Running, console
from helpers import eventually
from logged import alert
from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services import cli
from midwatch_services.console import routes
from midwatch_services.console.access.roles import Role
from midwatch_services.logger import alert_pages, store

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
PART, OLDER = re.compile(r'hx-get="(/alerts\?part=1[^"]*)"'), re.compile(r'rel="next" href="([^"]*)"')


def keep(settings: Settings, *events: object) -> None:
    """Puts alerts where the logger keeps them."""
    url = settings.database_for(subjects.LOGGER)
    migrate(url, subjects.LOGGER)
    database = Database(url)
    for event in events:
        database.write_now(lambda conn, event=event: store.save_alert(conn, event))
    database.close()


async def say(js: JetStreamContext, *events: object) -> None:
    """Says alerts on the bus, as the services that watch do."""
    for event in events:
        name = {"AlertRaised": "raised", "AlertResolved": "resolved"}.get(type(event.data).__name__, "acknowledged")  # type: ignore[attr-defined]
        await js.publish(subjects.alert("desk", name), codec.encode(event))  # type: ignore[arg-type]


def some() -> list[object]:
    now = utc_now()
    return [
        alert("raised", alert_id="a-open", title="Run r-1 has cost <b>$1.20</b>", at=now - HOUR),
        alert("raised", alert_id="a-taken", title="It loops", severity="ticket", at=now - 2 * HOUR),
        alert("acknowledged", alert_id="a-taken", by="ben", at=now - HOUR),
        alert("raised", alert_id="a-over", title="Slow", severity="info", run_id=None, at=now - 3 * HOUR),
        alert("resolved", alert_id="a-over", reason="it is fast again", repeats=3, at=now - HOUR),
    ]


async def test_where_nobody_is_told_the_pages_say_so_and_how_to_mend_it(
    js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.home.mkdir(parents=True)
    (settings.home / "run.json").write_text('{"http": {"pager": "http://127.0.0.1:1/pager"}}')
    async with console(settings) as running, running.person(Role.OPERATOR) as ann, running.person(Role.VIEWER) as vera:
        for path in ("/alerts", "/about", "/today/needs"):
            page = (await ann.get(path)).text
            assert "Nobody is told of " in page and "midwatch pager new" in page
            assert "whoever is on call is told" not in page
        assert "midwatch pager new" not in (await vera.get("/today/needs")).text
        monkeypatch.delenv("CHAT_URL", raising=False)
        contacts = "contacts: {ann: [chat]}\nroutes: {all: {steps: [{tell: ann, within: 10m}]}}\ndefault: all\n"
        settings.pager_yaml.write_text('channels: {chat: {apprise: "${CHAT_URL}"}}\n' + contacts)
        assert "midwatch pager check" in (await ann.get("/alerts")).text
        settings.pager_yaml.write_text("channels: {chat: {apprise: json://127.0.0.1:1/}}\n" + contacts)
        assert "whoever is on call is told" in (await ann.get("/alerts")).text
        assert "Nobody is told" not in (await ann.get("/about")).text


async def test_where_the_pager_runs_elsewhere_nothing_is_said_of_who_is_told(
    js: JetStreamContext, settings: Settings
) -> None:
    async with console(settings) as running, running.person(Role.OPERATOR) as ann:
        assert "Nobody is told" not in (await ann.get("/about")).text


async def test_each_state_has_its_list_in_an_address_of_its_own(running: Running, settings: Settings) -> None:
    keep(settings, *some())
    async with running.person(Role.VIEWER) as vera:
        pages = {
            state: (await vera.get(f"/alerts?state={state}")).text for state in ("open", "acknowledged", "resolved")
        }
        assert "Run r-1 has cost &lt;b&gt;$1.20&lt;/b&gt;" in pages["open"]
        assert 'href="/runs/desk/r-1"' in pages["open"]
        assert "Wakes somebody" in pages["open"] and "The run was stopped" in pages["open"]
        assert "I have it" not in pages["open"].replace("Somebody has it", "")
        assert "ben has it" in pages["acknowledged"] and "For the day" in pages["acknowledged"]
        assert "Over: it is fast again" in pages["resolved"] and "met 3 times more since" in pages["resolved"]
        assert ["It loops" in pages[state] for state in pages] == [False, True, False]
        everything = (await vera.get("/alerts?state=all")).text
        assert [everything.find(title) for title in ("has cost", "It loops", "Slow")] == sorted(
            everything.find(title) for title in ("has cost", "It loops", "Slow")
        )
        assert "It loops" not in (await vera.get("/alerts?state=all&severity=page")).text
        wrong = ("state=x", "agent=No", "severity=x", "before=" + "x" * 500)
        assert [(await vera.get(f"/alerts?{one}")).status_code for one in wrong] == [404] * 4


async def test_one_leafs_through_many_alerts(running: Running, settings: Settings) -> None:
    now = utc_now()
    keep(settings, *(alert("raised", alert_id=f"a-{n:03}", title=f"No {n:03}", at=now - n * HOUR) for n in range(60)))
    async with running.person(Role.VIEWER) as vera:
        first = (await vera.get("/alerts")).text
        assert "No 049" in first and "No 050" not in first
        older = first.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
        second = (await vera.get(older)).text
        assert "No 050" in second and "No 059" in second and "No 049" not in second
        assert "1 to 50 of 60, the newest first." in first and "51 to 60 of 60, the newest first." in second
        assert 'rel="prev"' not in first
        newer = second.split('rel="prev" href="')[1].split('"')[0].replace("&amp;", "&")
        assert (await vera.get(newer)).text.count('<li class="card') == 50
        assert "1 to 50 of 60" in (await vera.get(newer)).text


async def test_what_arrives_while_the_list_is_open_moves_its_older_page_along(
    running: Running, settings: Settings
) -> None:
    now = utc_now()
    keep(settings, *(alert("raised", alert_id=f"a-{n}", title=f"No {n:03}.", at=now + n * MINUTE) for n in range(3)))
    async with running.person(Role.VIEWER) as vera:
        part = PART.search((await vera.get("/alerts")).text)
        assert part is not None
        keep(settings, *(alert("raised", alert_id=f"a-{n}", title=f"No {n:03}.", at=now + n * MINUTE)
                         for n in range(3, 83)))  # fmt: skip
        shown = (await vera.get(part[1])).text
        assert "1 to 50 of 83, the newest first." in shown
        older = (await vera.get(OLDER.search(shown)[1].replace("&amp;", "&"))).text  # type: ignore[index]
        seen = [number for number in range(83) if f"No {number:03}." in shown + older]
        assert seen == list(range(83))
        keep(settings, alert("raised", alert_id="a-83", title="No 083.", at=now + 83 * MINUTE))
        part = PART.search(older)
        assert part is not None
        again = (await vera.get(part[1].replace("&amp;", "&"))).text
        assert "No 032." in again and "No 033." not in again and "52 to 84 of 84" in again


async def test_an_empty_list_says_what_was_looked_for_and_leads_to_the_rest(
    running: Running, settings: Settings
) -> None:
    keep(settings, *some())
    async with running.person(Role.VIEWER) as vera:
        page = (await vera.get("/alerts?agent=other&severity=ticket")).text
        assert "Only alerts of other, of the urgency “For the day” were looked for. There may be others." in page
        assert "<option>desk</option>" in (await vera.get("/alerts")).text, "agents without a card can be chosen too"
        assert "Nothing needs you" not in page and 'class="button" href="/alerts"' in page
        assert "<option selected>other</option>" in page
        nothing = (await vera.get("/alerts?severity=info")).text
        assert "No such alert here" in nothing and "No alert is open" not in nothing


async def test_a_single_thing_that_was_counted_is_told_as_one(running: Running, settings: Settings) -> None:
    counted = alert("raised", rule="not_armed", value=1, limit=0, run_id=None, evidence="midwatch switch")
    keep(settings, counted)
    async with running.person(Role.VIEWER) as vera:
        page = re.sub(r"<[^>]+>", "", (await vera.get("/alerts/a-1")).text)
        assert "Figure1 process\n" in page and "Limit0 processes\n" in page


async def test_one_key_takes_on_the_alert_that_one_reads_and_none_of_a_list(
    running: Running, settings: Settings
) -> None:
    keep(settings, *some())
    async with running.person(Role.OPERATOR) as eva:
        assert 'data-key="a"' not in (await eva.get("/alerts")).text
        assert 'data-key="a"' in (await eva.get("/alerts/a-open")).text


async def test_what_the_bus_does_not_confirm_is_said_in_plain_words_and_recorded_as_not_done(
    running: Running, settings: Settings, js: JetStreamContext
) -> None:
    keep(settings, *some())
    stream = await js.stream_info(subjects.GOVERNANCE)
    keeps = [name for name in stream.config.subjects or [] if not name.startswith("midwatch.alert.")]
    await js.update_stream(stream.config, subjects=keeps)
    async with running.person(Role.OPERATOR, "eva") as eva:
        answer = await eva.act("/alerts/a-open/acknowledge")
        assert answer.status_code == 503
        assert "the bus (NATS) did not confirm that you took it on" in answer.text
    assert [(one["action"], one["detail"].get("why")) for one in await running.recorded()] == [
        ("alert.acknowledged", None), ("alert.not_acknowledged", "unanswered"),
    ]  # fmt: skip


async def test_what_is_over_or_taken_is_not_recorded_as_taken_on(
    running: Running, settings: Settings, js: JetStreamContext
) -> None:
    keep(settings, *some())
    async with running.person(Role.OPERATOR, "eva") as eva, running.person(Role.OPERATOR, "ben") as ben:
        said = []
        for person, name in ((eva, "a-over"), (eva, "a-taken"), (ben, "a-taken")):
            answer = await person.act(f"/alerts/{name}/acknowledge")
            said.append((await person.get(answer.headers["location"])).text)
        assert "It was over already, so there was nothing to take on." in said[0]
        assert "ben has it already, so nothing was changed." in said[1]
        assert "You have it already." in said[2]
    assert [(one["action"], one["target"], one["detail"]["why"]) for one in await running.recorded()] == [
        ("alert.not_acknowledged", "a-over", "resolved"), ("alert.not_acknowledged", "a-taken", "acknowledged"),
        ("alert.not_acknowledged", "a-taken", "acknowledged"),
    ]  # fmt: skip
    with pytest.raises(NotFoundError):
        await js.get_last_msg(subjects.GOVERNANCE, subjects.alert("desk", "acknowledged"))


async def test_an_alerts_figures_have_units_and_its_evidence_stands_once(running: Running, settings: Settings) -> None:
    fields = {"value": "1.20", "limit": "1.00", "evidence": "midwatch show r-1"}
    loop = {"rule": "loop_cycle", "value": 6, "limit": 5, "evidence": "midwatch switch", "run_id": None}
    strange = {"rule": "theirs", "value": "a lot", "mode": "drill", "evidence": "https://graphs.example/7"}
    keep(
        settings, alert("raised", **fields), alert("raised", alert_id="a-2", **loop),
        alert("raised", alert_id="a-3", **strange),
    )  # fmt: skip
    async with running.person(Role.VIEWER) as vera:
        page = (await vera.get("/alerts/a-1")).text
        assert "<dd>$1.20</dd>" in page and "<dd>$1.00</dd>" in page and "What a run costs" in page
        assert page.count("<dt>Evidence</dt>") == 1 and "midwatch show" not in page
        page = (await vera.get("/alerts/a-2")).text
        assert '<bdi class="said">6</bdi> rounds' in page and "The same few calls in a circle" in page
        assert '<code class="said">midwatch switch</code>' in page
        page = (await vera.get("/alerts/a-3")).text
        assert "https://graphs.example/7" in page and page.count("<dt>Evidence</dt>") == 1
        assert '<bdi class="said">a lot</bdi>' in page and "<dd>Drill</dd>" in page


async def test_without_the_pagers_database_the_list_says_once_that_who_was_told_is_not_known(
    running: Running, settings: Settings
) -> None:
    keep(settings, *some(), alert("raised", alert_id="a-more", title="Another"))
    path = Path(settings.database_for(subjects.PAGER).removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"this is no database" * 100)
    async with running.person(Role.VIEWER) as vera:
        assert (await vera.get("/alerts")).text.count("Who was told: this cannot be read just now") == 1


async def test_one_press_takes_it_on_as_midwatch_ack_does(
    running: Running, settings: Settings, js: JetStreamContext
) -> None:
    keep(settings, *some())
    url = settings.database_for(subjects.LOGGER)

    async def log_it() -> None:
        """What the logger does with it."""
        heard = await js.subscribe(subjects.alert("*", "acknowledged"), ordered_consumer=True)
        message = await heard.next_msg(timeout=10)
        event = codec.decode(message.subject, message.data)
        database = Database(url)
        await database.write(lambda conn: store.save_alert(conn, event))
        database.close()

    logging = asyncio.create_task(log_it())
    async with running.person(Role.OPERATOR, "eva") as eva:
        answer = await eva.act("/alerts/a-open/acknowledge", here="agent=desk")
        assert (answer.status_code, answer.headers["location"]) == (303, "/alerts?agent=desk")
        await logging
        assert "You have it: nobody else is called for this cause." in (await eva.get("/alerts?agent=desk")).text
        assert "eva has it" in (await eva.get("/alerts?state=acknowledged")).text
    stored = await js.get_last_msg(subjects.GOVERNANCE, subjects.alert("desk", "acknowledged"))
    data = codec.decode(stored.subject or "", stored.data or b"").data
    assert (data.alert_id, data.by) == ("a-open", "eva")
    assert [(one["action"], one["target"], one["by"]) for one in await running.recorded()] == [
        ("alert.acknowledged", "a-open", "eva")
    ]


async def test_without_the_log_alerts_come_from_the_bus_and_can_be_taken_on(
    running: Running, settings: Settings, js: JetStreamContext
) -> None:
    path = Path(settings.database_for(subjects.LOGGER).removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"this is no database" * 100)
    await say(js, *some())
    async with running.person(Role.OPERATOR, "eva") as eva:
        page = (await eva.get("/alerts")).text
        assert "The run log: this cannot be read just now" in page
        assert "Run r-1 has cost" in page and "It loops" not in page
        await eva.act("/alerts/a-open/acknowledge", here="")
        assert "eva has it" in (await eva.get("/alerts?state=acknowledged")).text
        one = (await eva.get("/alerts/a-taken")).text
        assert "It loops" in one and "ben" in one
        assert (await eva.get("/alerts/a-unknown")).status_code == 404
        assert (await eva.act("/alerts/a-unknown/acknowledge")).status_code == 404


async def test_a_viewer_may_take_nothing_on(running: Running, settings: Settings, js: JetStreamContext) -> None:
    keep(settings, *some())
    async with running.person(Role.VIEWER) as vera, running.person(Role.REVIEWER) as rob:
        assert [(await one.act("/alerts/a-open/acknowledge")).status_code for one in (vera, rob)] == [403, 403]
    assert await running.done() == []


async def test_who_was_told_is_shown_from_the_pagers_own_tables(
    running: Running, settings: Settings, js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pager_helpers import FILE, SECRET, listening, pager, write_file

    monkeypatch.setenv("PAGER_SECRET", SECRET)
    with listening() as people:
        write_file(settings, FILE % {"url": people.url})
        async with pager(settings):
            events = some()
            keep(settings, *events)
            await say(js, *events)
            await eventually(lambda: people.calls)
            async with running.person(Role.VIEWER) as vera:

                async def look() -> str:
                    page = (await vera.get("/alerts/a-open")).text
                    assert "arrived" in page
                    return page

                page = await eventually(look)
                assert "Who was told, and when" in page
                assert "arrived" in (await vera.get("/alerts")).text


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_an_urgency_is_found_by_what_the_alert_is_and_not_by_what_it_says(
    kind: str, settings: Settings, request: pytest.FixtureRequest
) -> None:
    if kind == "postgres":
        settings = settings.model_copy(update={"database_url": request.getfixturevalue("postgres_url")})
    now, words = utc_now(), 'The agent said {"severity":"page"}'
    keep(
        settings, alert("raised", alert_id="a-1", severity="ticket", title=words, evidence=words, at=now),
        *(alert("raised", alert_id=f"a-{n}", at=now - n * MINUTE) for n in (2, 3, 4)),
    )  # fmt: skip
    database = Database(settings.database_for(subjects.LOGGER))
    urgent = alert_pages.Wanted(severity="page", limit=2)
    first = await database.read(lambda conn: alert_pages.find(conn, urgent))
    end = first[-1]["raised_key"]
    older = await database.read(lambda conn: alert_pages.find(conn, replace(urgent, before=end)))
    newer = await database.read(lambda conn: alert_pages.find(conn, replace(urgent, after=older[0]["raised_key"])))
    counted = await database.read(lambda conn: alert_pages.count(conn, urgent, older[0]["raised_key"]))
    database.close()
    assert [[one["alert_id"] for one in some] for some in (first, older, newer)] == [
        ["a-2", "a-3"], ["a-4"], ["a-2", "a-3"],
    ]  # fmt: skip
    assert counted == (3, 2)


def test_every_command_that_a_page_names_is_one_of_ours() -> None:
    pages = Path(routes.__file__).parent
    named = [found for file in sorted((pages / "templates").rglob("*.html"))
             for found in re.findall(r'"(midwatch [a-z -]+)"', file.read_text("utf-8"))]  # fmt: skip
    named += ["midwatch reviews --agent desk", "midwatch switch", "midwatch drill desk --history", "midwatch show r-1"]
    assert len(named) > 4
    for command in named:
        parses([*command.split()[1:], *(["desk"] if command.endswith(" ") else [])])  # an agent's name follows


def parses(words: list[str]) -> None:
    """Fails where our command line does not take the words; runs nothing."""
    command: Any = typer.main.get_command(cli.app)
    context = command.make_context("midwatch", words)
    while isinstance(command, TyperGroup) and (rest := [*context._protected_args, *context.args]):
        command = command.get_command(context, rest[0])
        assert command is not None, words
        context = command.make_context(rest[0], rest[1:], parent=context)


async def test_what_nobody_has_taken_on_is_told_with_the_urgent_first_and_without_drills(settings: Settings) -> None:
    now = utc_now()
    told = [
        ("a-1", {"severity": "ticket"}), ("a-2", {}), ("a-3", {"severity": "info"}), ("a-4", {"mode": "drill"}),
        ("a-5", {}), ("a-6", {}), ("a-7", {"run_id": None}),
    ]  # fmt: skip
    keep(
        settings,
        *(alert("raised", alert_id=name, title=name, at=now - HOUR / n, **fields)
          for n, (name, fields) in enumerate(told, 1)),
        alert("acknowledged", alert_id="a-5", by="ben", at=now), alert("resolved", alert_id="a-6", reason="x", at=now),
    )  # fmt: skip
    database = Database(settings.database_for(subjects.LOGGER))
    found = await database.read(alert_pages.unattended)
    database.close()
    assert [(one.title, one.severity, one.run_id) for one in found] == [
        ("a-7", "page", None), ("a-2", "page", "r-1"), ("a-1", "ticket", "r-1"),
    ]  # fmt: skip
