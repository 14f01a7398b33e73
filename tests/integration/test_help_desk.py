"""What a help desk may say of cases over HTTP, to the service as it runs; and a case all the way there and back."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from nats.aio.client import Client as NatsClient
from nats.js import JetStreamContext
from pydantic import SecretStr

from desk import KEY, SECRET, Desk, listening
from helpers import eventually
from kill_switch_helpers import QUICK, publish, said
from midwatch.contracts import subjects
from midwatch.contracts.governance import CaseOpened
from midwatch.runtime import webhook_signing as signing
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.service import Service, run_services
from midwatch.runtime.settings import Settings
from midwatch_services.kill_switch.app import build
from midwatch_services.kill_switch.cases import case_store, hands
from midwatch_services.kill_switch.cases.routing import Case

CASE = "case-0123456789ab"


@dataclass
class Client:
    """Speaks to kill-switch as a help desk does."""

    http: httpx.AsyncClient
    url: str

    async def say(
        self, path: str, body: Any, *, id: str = "msg-1", key: bytes = KEY, at: datetime | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Signs by the standard, written out: HMAC-SHA256 of `id.timestamp.body` in base64."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        timestamp = str(int((at or datetime.now(UTC)).timestamp()))
        digest = hmac.new(key, f"{id}.{timestamp}.".encode() + data, hashlib.sha256).digest()
        usual = {
            "webhook-id": id, "webhook-timestamp": timestamp,
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        }  # fmt: skip
        given = usual | {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.http.post(f"{self.url}/cases/{path}", content=data, headers=given)
        return answer.status_code, answer.json()


@asynccontextmanager
async def serving(settings: Settings, **update: Any) -> AsyncIterator[Client]:
    """kill-switch with a secret, once it runs."""
    settings = settings.model_copy(update={"cases_webhook_secret": SecretStr(SECRET), **update})
    started: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
    service = Service(subjects.KILL_SWITCH, partial(build, policy=QUICK))
    task = asyncio.create_task(run_services([service], settings, started=started.set_result))
    urls = await started
    async with httpx.AsyncClient() as http:
        yield Client(http, urls[subjects.KILL_SWITCH])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def waiting(js: JetStreamContext, settings: Settings) -> None:
    """A case that waits for people, in kill-switch's table."""
    url = settings.database_for(subjects.KILL_SWITCH)
    migrate(url, subjects.KILL_SWITCH)
    database, now = Database(url), datetime.now(UTC)
    case = Case(
        case_id=CASE, agent="desk", run_id="r1", state="open", to="human", opened_by="kill-switch", opened_at=now,
        updated_at=now,
    )  # fmt: skip
    body = CaseOpened(case_id=CASE, agent="desk", run_id="r1", to="human", reason="halted", opened_by="kill-switch")
    database.write_now(lambda conn: case_store.save(conn, case, body, new=True))
    database.close()


@pytest.mark.usefixtures("waiting")
async def test_a_help_desk_takes_a_case_gives_it_back_and_closes_it(js: JetStreamContext, settings: Settings) -> None:
    async with serving(settings) as desk:
        taken = await desk.say(f"{CASE}/accepted", {"by": "zendesk", "reference": "ZD-1"}, id="1")
        assert taken == (200, {"ok": True, "case_id": CASE, "state": "taken", "taken_by": "zendesk"})
        back = await desk.say(f"{CASE}/returned", {"by": "zendesk", "note": "not ours"}, id="2")
        assert back == (200, {"ok": True, "case_id": CASE, "state": "open", "taken_by": ""})
        assert (await desk.say(f"{CASE}/accepted", {"by": "zendesk"}, id="3"))[0] == 200
        status, state = await desk.say(f"{CASE}/closed", {"by": "zendesk", "note": "refunded"}, id="4")
        assert (status, state["state"]) == (200, "closed")
    spoken = await said(js, "case")
    assert [event for event, _ in spoken] == ["accepted", "returned", "accepted", "closed"]
    assert (spoken[0][1].reference, spoken[3][1].note) == ("ZD-1", "refunded")


@pytest.mark.usefixtures("waiting")
async def test_a_case_that_somebody_else_has_is_409_with_their_name(js: JetStreamContext, settings: Settings) -> None:
    async with serving(settings) as desk:
        assert (await desk.say(f"{CASE}/accepted", {"by": "ann"}, id="1"))[0] == 200
        for place, verb in enumerate(("accepted", "returned", "closed")):
            status, body = await desk.say(f"{CASE}/{verb}", {"by": "zendesk"}, id=f"x{place}")
            assert (status, body["taken_by"], "ann has it since" in body["error"]) == (409, "ann", True)
    assert len(await said(js, "case")) == 1


@pytest.mark.usefixtures("waiting")
async def test_without_a_good_signature_nothing_is_taken(js: JetStreamContext, settings: Settings) -> None:
    now, five = datetime.now(UTC), timedelta(minutes=5, seconds=2)
    async with serving(settings) as desk:
        say = partial(desk.say, f"{CASE}/accepted", {"by": "zendesk"})
        answers = [
            await say(key=b"another key of thirty-two bytes!"),
            await say(at=now - five),
            await say(at=now + five),
            await say(webhook_signature="v1,"),
            await say(webhook_signature="v2,AAAA"),
            await say(webhook_id="another"),
            await say(webhook_timestamp="yesterday"),
            await say(webhook_timestamp="9" * 400),
        ]
        assert [status for status, _ in answers] == [401] * 8
        assert (await desk.http.post(f"{desk.url}/cases/{CASE}/accepted", json={"by": "zendesk"})).status_code == 401
        # The same request, well signed, is.
        assert (await say())[0] == 200


@pytest.mark.usefixtures("waiting")
async def test_while_the_secret_changes_one_good_signature_of_several_is_enough(
    js: JetStreamContext, settings: Settings
) -> None:
    async with serving(settings) as desk:
        body = b'{"by": "zendesk"}'
        timestamp = str(int(datetime.now(UTC).timestamp()))
        good = base64.b64encode(hmac.new(KEY, f"7.{timestamp}.".encode() + body, hashlib.sha256).digest()).decode()
        status, _ = await desk.say(
            f"{CASE}/accepted", body, id="7", webhook_timestamp=timestamp, webhook_signature=f"v1,AAAA v1,{good}"
        )
        assert status == 200


@pytest.mark.usefixtures("waiting")
async def test_a_signature_that_was_seen_does_not_open_another_path_and_the_same_request_may_come_again(
    js: JetStreamContext, settings: Settings
) -> None:
    async with serving(settings) as desk:
        assert (await desk.say(f"{CASE}/accepted", {"by": "zendesk"}, id="1"))[0] == 200
        assert (await desk.say(f"{CASE}/closed", {"by": "zendesk"}, id="1"))[0] == 401
        assert (await desk.say(f"{CASE}/accepted", {"by": "zendesk"}, id="1"))[0] == 200
    assert [event for event, _ in await said(js, "case")] == ["accepted"]


@pytest.mark.usefixtures("waiting")
async def test_what_is_not_there_or_cannot_be_read_is_said(js: JetStreamContext, settings: Settings) -> None:
    async with serving(settings) as desk:
        assert (await desk.say("case-nothing/accepted", {"by": "z"}, id="1"))[0] == 404
        assert (await desk.say(f"{CASE[:8]}/accepted", {"by": "z"}, id="2"))[0] == 404, "a program says the whole name"
        assert (await desk.say(f"{CASE}/opened", {"by": "z"}, id="3"))[0] == 404
        for place, body in enumerate((b"", b"{", b"[]", b'{"by": ""}', b'{"by": 1}', b'{"reference": "x"}')):
            assert (await desk.say(f"{CASE}/accepted", body, id=f"b{place}"))[0] == 400, body
        assert (await desk.say(f"{CASE}/accepted", b"x" * (64 * 1024 + 1), id="4"))[0] == 413
        assert (await desk.http.get(f"{desk.url}/cases/{CASE}/accepted")).status_code == 404
    assert await said(js, "case") == []


@pytest.mark.usefixtures("waiting")
async def test_without_a_secret_no_help_desk_is_let_in(js: JetStreamContext, settings: Settings) -> None:
    async with serving(settings, cases_webhook_secret=None) as desk:
        status, body = await desk.say(f"{CASE}/accepted", {"by": "zendesk"})
        assert (status, "MIDWATCH_CASES_WEBHOOK_SECRET" in body["error"]) == (503, True)


@pytest.mark.usefixtures("waiting")
async def test_what_is_recorded_and_not_judged_yet_is_202(
    js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hands, "WITHIN", 0.1)
    async with serving(settings) as desk:
        await js.delete_consumer(subjects.GOVERNANCE, subjects.KILL_SWITCH_GOVERNANCE)
        status, body = await desk.say(f"{CASE}/accepted", {"by": "zendesk"})
        assert (status, body["state"]) == (202, "open")
    assert [event for event, _ in await said(js, "case")] == ["accepted"]


# What docs/queue.md shows


def shown(language: str) -> str:
    text = (Path(__file__).resolve().parents[2] / "docs" / "queue.md").read_text()
    (block,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(block)


def test_the_check_of_a_signature_in_the_documents_is_right() -> None:
    names: dict[str, Any] = {}
    exec(shown("python"), names)
    check, body, now = names["is_from_midwatch"], b'{"type": "case.opened"}', datetime.now(UTC)
    assert check(SECRET, signing.headers(KEY, "case-1-opened", body, now), body)
    assert not check(SECRET, signing.headers(KEY, "case-1-opened", body, now), body + b" ")
    assert not check(SECRET, signing.headers(KEY, "case-1-opened", body, now - timedelta(minutes=6)), body)
    assert not check(SECRET, signing.headers(KEY[::-1], "case-1-opened", body, now), body)


@pytest.mark.usefixtures("waiting")
async def test_the_message_in_the_documents_takes_a_case_by_a_plain_request(
    nc: NatsClient, js: JetStreamContext, settings: Settings
) -> None:
    message = shown("json").replace("case-3f9a0c1d2e4b", CASE).encode()
    async with serving(settings):
        stored = json.loads((await nc.request("midwatch.case.desk.accepted", message, timeout=5)).data)
        assert stored["stream"] == subjects.GOVERNANCE
        await eventually(lambda: taken_by(settings, CASE) == "zendesk")


async def test_a_stopped_run_reaches_the_help_desk_which_takes_and_closes_its_case(
    js: JetStreamContext, settings: Settings
) -> None:
    with listening(Desk(reply=lambda said: (200, b'{"accepted_by": "zendesk", "reference": "ZD-9"}'))) as theirs:
        async with serving(settings, cases_webhook=theirs.url) as desk:
            case_id = subjects.case_id("desk", "r1")
            await publish(js, "started", ticket="T-1")
            await publish(js, "tool_called", seq=1, ticket="T-1", arguments={"order": 7}, result="paid")
            await publish(
                js, "handed_off", seq=2, ticket="T-1", to="human", reason="wrong refunds", key="agent.desk", epoch=3
            )
            await publish(js, "finished", seq=3, ticket="T-1", resolution="halted", epoch=3, halted_by="agent.desk")
            [call] = await eventually(lambda: theirs.calls)
            await eventually(lambda: taken_by(settings, case_id) == "zendesk")
            assert (await desk.say(f"{case_id}/closed", {"by": "zendesk", "note": "refunded"}))[0] == 200
            await eventually(lambda: len(theirs.calls) == 2)
    opened = call.said["data"]
    assert (opened["case_id"], opened["ticket"], opened["reason"]) == (case_id, "T-1", "wrong refunds")
    assert [event["event"] for event in opened["events"]][:3] == ["started", "tool_called", "handed_off"]
    assert theirs.calls[1].said["data"] == {"case_id": case_id, "by": "zendesk", "note": "refunded"}
    assert [event for event, _ in await said(js, "case")] == ["opened", "accepted", "closed"], "once each"


def taken_by(settings: Settings, case_id: str) -> str:
    database = Database(settings.database_for(subjects.KILL_SWITCH), must_exist=True)
    found = database.read_now(lambda conn: case_store.read_case(conn, case_id))
    database.close()
    return str(found["taken_by"]) if found else ""
