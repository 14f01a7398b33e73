"""`midwatch reviews`: the queue for people, and the verification of every draw."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
import typer
from nats.aio.client import Client
from nats.js import JetStreamContext
from typer.testing import CliRunner, Result

from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import Card, ReviewRule
from midwatch.contracts.runs import Started
from midwatch.runtime.card_book import CardBook
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch_services.commands import reviews
from midwatch_services.logger import store as run_log
from midwatch_services.reviewer_sampler.handlers import Sampler

NOW = datetime.now(UTC)
DAY = NOW - timedelta(days=3)
ON_DAY = DAY.date().isoformat()


async def midwatch(*arguments: str) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    reviews.register(app)
    return await asyncio.to_thread(CliRunner().invoke, app, ["reviews", *arguments])


def received(number: int, stored_at: datetime, agent: str = "desk", mode: str = "live") -> Received:
    run_id = f"run-{number}"
    data = Started(run_id=run_id, agent=agent, version="1", mode=mode, seq=0, input="hi", ticket=f"[red]T\x1b{number}")  # type: ignore[arg-type]
    body = codec.encode(codec.envelope("run", "started", data, source=f"/agents/{agent}/test", subject=run_id))
    subject = subjects.run(agent, "started")
    return Received(codec.decode_run(subject, body), body, subject, None, 1, 1, stored_at, "reply")


class Bed:
    """A sampler and a run log on the databases that the command reads."""

    def __init__(self, sampler: Sampler, database: Database, log: Database) -> None:
        self.sampler, self.database, self.log = sampler, database, log

    async def take(self, batch: list[Received], *, logged: bool = True, drawn: bool = True) -> None:
        if drawn:
            await self.sampler.on_events(batch)
            await self.sampler.outbox.drain()
        if logged:
            await self.log.write(lambda conn: run_log.save(conn, batch))

    async def change(self, statement: str) -> None:
        assert (await self.database.write(lambda conn: conn.execute(sa.text(statement)).rowcount)) == 1


@pytest.fixture
async def bed(
    js: JetStreamContext, nc: Client, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bed]:
    monkeypatch.setenv("NATS_URL", nats_server.url)
    monkeypatch.setenv("COLUMNS", "200")
    settings = Settings()
    for service in (subjects.REVIEWER_SAMPLER, subjects.LOGGER):
        migrate(settings.database_for(service), service)
    database, log = (Database(settings.database_for(name)) for name in (subjects.REVIEWER_SAMPLER, subjects.LOGGER))
    for agent, rate in (("desk", 0.5), ("other", 1.0)):
        card = Card(agent=agent, owner="Ann", purpose="p", can=["c"], review=ReviewRule(rate=rate))
        await js.publish(subjects.key_subject(subjects.AGENTS, agent), control.encode(card))
    cards = CardBook(js, nc)
    await cards.start()
    keys = iter([bytes(range(32)), bytes(32), b"\1" * 32])
    yield Bed(
        Sampler(
            database, nc, js, cards, lambda: datetime.now(UTC), keep=timedelta(days=30), new_key=lambda: next(keys)
        ),
        database,
        log,
    )
    await cards.close()
    database.close()
    log.close()


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


async def test_the_queue_lists_the_runs_drawn_the_newest_first(bed: Bed) -> None:
    for number in range(3):
        await bed.take([received(number, NOW, "other")])
    result = await midwatch("--json")
    assert result.exit_code == 0
    assert [row["run_id"] for row in rows(result)] == ["run-2", "run-1", "run-0"]
    newest = rows(result)[0]
    assert {**newest, "sampled_at": "", "draw": 0, "key_hash": ""} == {
        "agent": "other", "run_id": "run-2", "mode": "live", "ticket": "[red]T\x1b2", "rate": 1.0, "draw": 0,
        "day": NOW.date().isoformat(), "key_hash": "", "sampled_at": "", "state": "waiting", "drawn": 1, "causes": [],
        "version": "1", "due_day": NOW.date().isoformat(), "verdict": None, "settled_at": None,
    }  # fmt: skip
    assert [row["run_id"] for row in rows(await midwatch("--json", "--limit", "1"))] == ["run-2"]


async def test_the_queue_can_be_narrowed_and_hides_replays(bed: Bed) -> None:
    await bed.take([received(1, NOW, "other"), received(2, NOW, "other", "replay"), received(3, NOW, "other", "eval")])
    assert {row["mode"] for row in rows(await midwatch("--json"))} == {"live", "eval"}
    assert [row["run_id"] for row in rows(await midwatch("--json", "--mode", "replay"))] == ["run-2"]
    assert rows(await midwatch("--json", "--agent", "desk")) == []
    assert (await midwatch("--mode", "reply")).exit_code == 2


async def test_the_queue_hides_the_tickets_of_a_drill(bed: Bed) -> None:
    await bed.take([received(1, NOW, "other"), received(2, NOW, "other", "drill")])
    assert {row["mode"] for row in rows(await midwatch("--json"))} == {"live"}
    assert [row["run_id"] for row in rows(await midwatch("--json", "--mode", "drill"))] == ["run-2"]


async def test_the_table_is_safe_and_says_the_share_of_each_agent(bed: Bed) -> None:
    await bed.take([received(number, DAY) for number in range(20)])
    await bed.take([received(1, DAY, "other")])
    drawn = len(rows(await midwatch("--json", "--agent", "desk")))
    result = await midwatch()
    assert result.exit_code == 0
    assert "[red]T 1" in result.stdout
    assert "\x1b" not in result.stdout
    assert 0 < drawn < 20
    assert result.stdout.splitlines()[-2:] == [
        f"desk: {drawn} of 20 runs drawn ({drawn / 20:.1%})", "other: 1 of 1 runs drawn (100.0%)",
    ]  # fmt: skip


async def test_an_honest_day_is_verified(bed: Bed) -> None:
    await bed.take([received(number, DAY) for number in range(20)])
    await bed.take([received(1, DAY, mode="replay")])
    await bed.sampler.reveal()
    result = await midwatch("verify", "--json")
    assert result.exit_code == 0, result.stdout
    [report] = rows(result)
    assert (report["day"], report["verdict"], report["decided"], report["logged"]) == (ON_DAY, "passed", 21, 21)
    assert report["sampled"] == len(rows(await midwatch("--json"))) + len(
        rows(await midwatch("--json", "--mode", "replay"))
    )
    text = await midwatch("verify", "--day", ON_DAY)
    assert text.stdout.startswith(f"{ON_DAY}: passed, {report['sampled']} sampled of 21 runs, 21 in the run log")


@pytest.mark.parametrize(
    ("cheat", "expected"),
    [
        ("UPDATE reviewer_sampler_runs SET draw = 0.25 WHERE run_id = 'run-1'", "desk run-1 is recorded with 0.250000"),
        ("UPDATE reviewer_sampler_runs SET drawn = 1 - drawn WHERE run_id = 'run-1'", "desk run-1 is recorded as"),
        ("DELETE FROM reviewer_sampler_queue WHERE run_id = (SELECT min(run_id) FROM reviewer_sampler_queue)",
         "is not in the queue"),
        ("DELETE FROM reviewer_sampler_runs WHERE run_id = 'run-1'", "desk run-1 is in the run log and was never"),
    ],
)  # fmt: skip
async def test_a_tampered_record_is_found(bed: Bed, cheat: str, expected: str) -> None:
    await bed.take([received(number, DAY) for number in range(20)])
    await bed.sampler.reveal()
    await bed.change(cheat)
    result = await midwatch("verify")
    assert result.exit_code == 1
    assert f"{ON_DAY}: failed" in result.stdout
    assert expected in result.stdout


async def test_a_logged_run_that_was_never_drawn_is_found(bed: Bed) -> None:
    await bed.take([received(number, DAY) for number in range(20)])
    await bed.take([received(99, DAY)], drawn=False)
    await bed.sampler.reveal()
    result = await midwatch("verify")
    assert result.exit_code == 1
    assert "desk run-99 is in the run log and was never drawn or passed over" in result.stdout


async def test_a_run_that_the_sampler_has_yet_to_read_is_no_mismatch(bed: Bed, js: JetStreamContext) -> None:
    await bed.take([received(number, DAY) for number in range(20)])
    await bed.sampler.reveal()
    waiting = received(99, datetime.now(UTC))
    await js.publish(waiting.subject, waiting.body)
    message = await js.get_last_msg(subjects.RUNS, waiting.subject)
    assert message.time is not None
    waiting.stored_at = message.time
    await bed.take([waiting], drawn=False)
    result = await midwatch("verify", "--day", message.time.date().isoformat(), "--json")
    assert rows(result)[0]["mismatches"] == []
    assert rows(result)[0]["logged"] == 0


async def test_a_day_whose_key_is_secret_is_not_confirmed(bed: Bed) -> None:
    await bed.take([received(1, NOW)])
    result = await midwatch("verify", "--day", NOW.date().isoformat())
    assert result.exit_code == 3
    assert "inconclusive" in result.stdout
    assert "the key of this day is not revealed yet" in result.stdout
    assert (await midwatch("verify")).stdout == "No day's key is revealed yet: it is once the day is over (UTC).\n"


async def test_without_the_samplers_database_only_the_bus_is_judged(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    await bed.take([received(number, DAY) for number in range(5)])
    await bed.sampler.reveal()
    monkeypatch.setenv("MIDWATCH_DATABASE_URL", "sqlite:////nowhere/{service}.db")
    result = await midwatch("verify", "--json")
    assert result.exit_code == 3
    assert (rows(result)[0]["verdict"], rows(result)[0]["decided"]) == ("inconclusive", None)


async def test_a_wrong_day_and_a_missing_server_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = await midwatch("verify", "--day", "yesterday")
    assert (wrong.exit_code, wrong.stderr) == (2, "midwatch: 'yesterday' is no day: write YYYY-MM-DD\n")
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    gone = await midwatch("verify")
    assert gone.exit_code == 1
    assert gone.stderr.startswith("midwatch: no NATS server answers at nats://127.0.0.1:1 (")
    nothing = await midwatch()
    assert nothing.exit_code == 1
    assert nothing.stderr.startswith("midwatch: There is no database at ")
