"""What is redacted before it is stored, on a real server and both databases; and the commands around it."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from nats.js import JetStreamContext
from typer.testing import CliRunner, Result

from helpers import eventually
from logged import alert, publish
from midwatch.contracts import codec, subjects
from midwatch.contracts.control import REDACTED, Card, LogRule, RedactRule
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.database import Database
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch_services.cards import bucket
from midwatch_services.cards.meaning import meaning_hash
from midwatch_services.cli import app
from midwatch_services.logger import store
from midwatch_services.logger.app import SERVICE
from midwatch_services.logger.redaction import keys

MAIL, CARD, PHONE, IBAN = "dana.moore@example.com", "4111 1111 1111 1111", "555-123-2002", "DE89 3704 0044 0532 0130 00"
SECRETS = (MAIL, CARD, PHONE, IBAN)
SAID = f"I am {MAIL}, {PHONE}, {CARD}, {IBAN}"


class Log:
    """The running logger, and its database read from beside it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._task: asyncio.Task[None] | None = None
        self.database = Database(settings.database_for("logger"), name="test")

    async def start(self) -> None:
        running = asyncio.Event()
        self._task = asyncio.create_task(
            run_services([SERVICE], self.settings, started=lambda _: running.set(), restart=True)
        )
        await asyncio.wait_for(running.wait(), 20)

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def run(self, run_id: str, *, events: int = 1) -> dict[str, Any]:
        async def found() -> dict[str, Any] | None:
            runs = await self.database.read(lambda conn: store.read_runs(conn, run_id=run_id))
            return next((run for run in runs if run["events"] == events), None)

        run = await eventually(found, within=10)
        assert run is not None
        return run


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def log(
    request: pytest.FixtureRequest, js: JetStreamContext, nats_server: NatsServer, tmp_path: Path
) -> AsyncIterator[Log]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    made = Log(Settings(home=tmp_path / "home", nats_url=nats_server.url, http_port=0, database_url=url))
    await made.start()
    yield made
    await made.stop()
    made.database.close()


async def apply(js: JetStreamContext, *redact: RedactRule) -> None:
    card = Card(agent="desk", owner="Ann", purpose="Answers.", can=["Look"], log=LogRule(redact=redact))
    card = msgspec.structs.replace(card, hash=meaning_hash(card))
    await bucket.apply(js, card, by="test", now=utc_now())


async def every_event(js: JetStreamContext, run_id: str = "r-1") -> None:
    """A run in which each kind of event says everything, in every field that holds a text."""
    deep = {"a": [{"b": SAID}], "text": json.dumps({"c": SAID})}
    await publish(js, "started", run_id=run_id, input=[{"role": "user", "content": SAID}], labels={"note": SAID})
    await publish(js, "said", run_id=run_id, seq=1, by="customer", text=SAID)
    await publish(js, "model_called", run_id=run_id, seq=2, model="m", output=deep, error=SAID)
    await publish(js, "tool_called", run_id=run_id, seq=3, tool="t", arguments=deep, result=deep, error=SAID)
    await publish(
        js, "handed_off", run_id=run_id, seq=4, to="human", reason=SAID, summary=SAID, context=[{"content": SAID}]
    )
    await publish(js, "finished", run_id=run_id, seq=5, resolution="failed", output=SAID, error=SAID)


def everything_in(log: Log, folder: Path) -> str:
    """All that lies in the database, as a person with its files or a dump would search it."""
    if log.database.dialect == "sqlite":
        files = [path for path in (folder / "home" / "data").iterdir() if path.name.startswith("logger.db")]
        return "".join(path.read_bytes().decode("latin-1") for path in files)
    dump = []
    with psycopg.connect(str(log.settings.database_url)) as conn:
        tables = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        dump = [str(conn.execute(f'SELECT * FROM "{name}"').fetchall()) for (name,) in tables]  # type: ignore[call-overload]
    return "".join(dump)


async def test_the_database_holds_nothing_of_what_the_defaults_name(
    js: JetStreamContext, log: Log, tmp_path: Path
) -> None:
    await every_event(js)
    await js.publish(subjects.alert("desk", "raised"), codec.encode(alert("raised", title=f"Run wrote {SAID}")))
    run = await log.run("r-1", events=6)
    await eventually(lambda: _alerts(log))
    left = "I am [email], [phone], [card], [iban]"
    assert (run["error"], run["output"], run["handed_off_reason"]) == (left, left, left)
    assert run["input"] == [{"role": "user", "content": left}]
    [raised] = await _alerts(log)
    assert raised["title"] == f"Run wrote {left}"
    found = everything_in(log, tmp_path)
    assert "[email]" in found
    assert [secret for secret in SECRETS if secret in found] == []


async def _alerts(log: Log) -> list[dict[str, Any]]:
    return await log.database.read(lambda conn: store.read_alerts(conn, agent="desk"))


async def test_a_changed_card_is_obeyed_from_its_next_event_on(js: JetStreamContext, log: Log) -> None:
    await publish(js, "finished", run_id="r-1", resolution="failed", error=f"{MAIL} A-1234")
    assert (await log.run("r-1"))["error"] == "[email] A-1234"
    await apply(js, *REDACTED, RedactRule(name="order_no", pattern=r"A-\d{4}"))

    async def obeyed() -> bool:
        run_id = f"r-{os.urandom(4).hex()}"
        await publish(js, "finished", run_id=run_id, resolution="failed", error=f"{MAIL} A-1234")
        return bool((await log.run(run_id))["error"] == "[email] [order_no]")

    assert await eventually(obeyed, within=10)
    await apply(js)

    async def off() -> bool:
        run_id = f"r-{os.urandom(4).hex()}"
        await publish(js, "finished", run_id=run_id, resolution="failed", error=f"{MAIL} A-1234")
        return bool((await log.run(run_id))["error"] == f"{MAIL} A-1234")

    assert await eventually(off, within=10)


async def test_an_event_that_comes_again_is_stored_once_and_alike(js: JetStreamContext, log: Log) -> None:
    await publish(js, "said", by="customer", text=SAID, id="e-1")
    await log.run("r-1")
    before = await log.database.read(lambda conn: store.read_events(conn, "desk", "r-1"))
    # The server knows the id for two minutes only: without it, the repeat reaches the logger.
    message = await js.get_msg(subjects.RUNS, 1)
    await js.publish(str(message.subject), message.data or b"")
    await publish(js, "said", run_id="r-2", by="customer", text="x")
    await log.run("r-2")
    assert await log.database.read(lambda conn: store.read_events(conn, "desk", "r-1")) == before


def midwatch(*arguments: str, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


async def test_show_reveals_to_those_who_hold_the_key(
    js: JetStreamContext, nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "elsewhere.key"
    keys.create(key)
    settings = Settings(home=tmp_path / "home", nats_url=nats_server.url, http_port=0, redaction_key_file=key)
    await apply(js, RedactRule(name="email", reversible=True), RedactRule(name="card"))
    log = Log(settings)
    await log.start()
    try:
        await publish(js, "finished", resolution="failed", error=f"{MAIL} {CARD}")
        run = await log.run("r-1")
    finally:
        await log.stop()
        log.database.close()
    assert run["error"].startswith("[email:1.") and run["error"].endswith(" [card]")
    assert MAIL not in (await asyncio.to_thread(midwatch, "show", "r-1", "--json")).stdout
    refused = await asyncio.to_thread(midwatch, "show", "r-1", "--reveal")
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"midwatch: there is no redaction key in {tmp_path / 'home' / 'redaction.key'}: ")
    monkeypatch.setenv("MIDWATCH_REDACTION_KEY_FILE", str(key))
    revealed = await asyncio.to_thread(midwatch, "show", "r-1", "--reveal", "--json")
    assert json.loads(revealed.stdout)["error"] == f"{MAIL} [card]"
    told = await asyncio.to_thread(midwatch, "show", "r-1", "--reveal")
    assert MAIL in told.stdout and CARD not in told.stdout


async def test_doctor_says_that_what_should_come_back_will_not(
    js: JetStreamContext, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NATS_URL", nats_server.url)

    async def finding() -> dict[str, Any] | None:
        result = await asyncio.to_thread(midwatch, "doctor", "--json")
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        return next((row for row in rows if row["check"] == "redaction"), None)

    assert await finding() is None
    await apply(js, RedactRule(name="email", reversible=True))
    missing = await finding()
    assert missing is not None and not missing["ok"]
    assert "midwatch redaction new-key" in missing["mend"]
    assert midwatch("redaction", "new-key").exit_code == 0
    there = await finding()
    assert there is not None and there["ok"]


def test_a_text_can_be_tried_before_a_card_is_applied(tmp_path: Path) -> None:
    card = tmp_path / "desk.yaml"
    card.write_text(
        "agent: desk\nowner: Ann\npurpose: Answers.\ncan: [Look]\n"
        "log: {redact: [email, {name: order_no, pattern: 'A-\\d{4}'}]}\n"
    )
    result = midwatch("redaction", "test", "--card", str(card), stdin=f"{MAIL} about A-1234, {PHONE}\n")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"[email] about [order_no], {PHONE}", "order_no  A-1234", f"email  {MAIL}",
    ]  # fmt: skip
    assert result.stderr == "replaced: 1 email, 1 order_no\n"
    found = midwatch("redaction", "test", "--json", "--fail-on-match", stdin=MAIL)
    assert found.exit_code == 1
    assert [json.loads(line) for line in found.stdout.splitlines()] == [
        {"where": None, "redacted": "[email]", "replaced": [{"name": "email", "text": MAIL}]},
        {"texts": 1, "replaced": {"email": 1}},
    ]
    assert midwatch("redaction", "test", "--fail-on-match", stdin="nothing here").exit_code == 0


def test_what_cannot_be_tried_is_said_and_fails(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("agent: desk\n")
    bad = midwatch("redaction", "test", "--card", str(tmp_path / "bad.yaml"), stdin="x")
    assert (bad.exit_code, bad.stderr.splitlines()[-1]) == (
        1, "midwatch: the card has mistakes, so none of its rules can be tried",
    )  # fmt: skip
    missing = midwatch("redaction", "test", str(tmp_path / "nothing.txt"))
    assert missing.exit_code == 1
    assert str(tmp_path / "nothing.txt") in missing.stderr


@pytest.mark.data
def test_a_file_of_real_runs_can_be_tried(data_dir: Path) -> None:
    result = midwatch("redaction", "test", str(data_dir / "agent-runs" / "runs.jsonl.gz"), "--json")
    assert result.exit_code == 0
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["replaced"]["email"] > 600
    assert "dana.moore" not in result.stdout
