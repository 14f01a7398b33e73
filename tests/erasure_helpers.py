"""A customer whose words stand everywhere, and a search for them in all that Midwatch keeps."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import nats.js.errors
from nats.js import JetStreamContext

from helpers import all_read, eventually
from logged import publish
from midwatch.contracts import codec, control, governance, reviews, subjects
from midwatch.contracts.control import CaseClaim, SwitchRecord
from midwatch.contracts.envelope import new_id, utc_now
from midwatch.runtime.dead_letters import bury
from midwatch.runtime.service import Context, Service, run_services
from midwatch.runtime.settings import Settings
from midwatch_services import registry

CUSTOMER, TICKET = "cust-7781-zanzibar", "T-zanzibar-9"
# Each word stands in another place, so that a hit names the place.
PLANTED = (
    "zanzibar", "plantinput", "plantargument", "plantresult", "planterror", "plantsummary", "plantcontext",
    "plantreason",
    "plantsaid", "plantmodel", "plantoutput", "plantsession", "planttitle", "plantevidence", "plantcase", "plantnote",
    "plantreview", "plantbetter", "plantletter", "plantmalformed", "plantswitch", "plantclaim", "plantlabel",
    "plantlate",
)  # fmt: skip


async def plant(js: JetStreamContext, run_id: str = "r-1", agent: str = "desk", **fields: Any) -> None:
    """One whole run of the customer, with a planted word in each field that can hold text."""
    who = {"run_id": run_id, "agent": agent, "ticket": TICKET, "session": "plantsession", "at": utc_now(), **fields}
    await publish(js, "started", input="plantinput", customer=CUSTOMER, seq=0, labels={"a": "plantlabel"}, **who)
    await publish(js, "said", by="customer", text="plantsaid", seq=1, **who)
    await publish(js, "model_called", model="gpt-4.1", output="plantmodel", error="planterror", seq=2, **who)
    await publish(
        js, "tool_called", tool="lookup", arguments={"q": "plantargument"}, result="plantresult", error="planterror",
        seq=3, **who,
    )  # fmt: skip
    await publish(
        js, "handed_off", to="human", reason="plantreason", summary="plantsummary", context={"x": "plantcontext"},
        key=subjects.runs_key(agent), seq=4, **who,
    )  # fmt: skip
    await publish(js, "finished", resolution="halted", output="plantoutput", error="planterror", seq=5, **who)


async def say(js: JetStreamContext, noun: str, event: str, data: Any, agent: str = "desk") -> None:
    """Something that a service or a person says."""
    made = codec.envelope(noun, event, data, source="/people/x")
    await js.publish(f"midwatch.{noun}.{agent}.{event}", codec.encode(made), headers={subjects.MSG_ID: made.id})


async def plant_decisions(js: JetStreamContext, run_id: str = "r-1", agent: str = "desk") -> None:
    """Alerts, words about a case, letters, a halt and a claim with planted words in them."""
    raised = governance.AlertRaised(
        alert_id="a-1", rule="other", severity="page", title="planttitle", agent=agent, run_id=run_id, ticket=TICKET,
        dedupe_key=f"x/{TICKET}", evidence="plantevidence",
    )  # fmt: skip
    await say(js, "alert", "raised", raised)
    await say(js, "alert", "acknowledged", governance.AlertAcknowledged(alert_id="a-1", by="ann", note="plantnote"))
    by_ticket = governance.AlertRaised(
        alert_id="a-2", rule="budget_ticket", severity="ticket", title="planttitle", agent=agent, ticket=TICKET,
        dedupe_key="y",
    )  # fmt: skip
    await say(js, "alert", "raised", by_ticket)
    await say(js, "alert", "resolved", governance.AlertResolved(alert_id="a-2", reason="plantnote"))
    case = subjects.case_id(agent, run_id)
    await say(js, "case", "accepted", governance.CaseAccepted(case_id=case, by="bo", reference="plantcase"))
    await say(js, "case", "returned", governance.CaseReturned(case_id=case, by="bo", note="plantnote"))
    judged = reviews.ReviewJudged(
        run_id=run_id, agent=agent, by="ann", verdict="fail", note="plantreview", corrected="plantbetter"
    )  # fmt: skip
    await say(js, "review", "judged", judged)
    for service in ("logger", "pager"):
        body = b'{"data": {"run_id": "%s", "text": "plantletter"}}' % run_id.encode()
        await bury(
            js,
            service,
            id=new_id(),
            reason="failed",
            error="plantletter",
            subject=subjects.run(agent, "said"),
            body=body,
        )
    # A message that no reader can read: every service buries it, and the stream keeps it.
    await js.publish(subjects.run(agent, "said"), b"not json: plantmalformed of " + CUSTOMER.encode())
    await js.publish(
        subjects.key_subject(subjects.SWITCH, subjects.runs_key(agent)),
        control.encode({run_id: SwitchRecord(state="halted", reason="plantswitch", by="x", at=utc_now())}),
    )
    claim = CaseClaim(agent=agent, run_id="r-shadow", by="pod", to="own", at=utc_now(), reason="plantclaim")
    await js.publish(subjects.key_subject(subjects.CASES, subjects.case_key(agent, "r-shadow")), control.encode(claim))


async def plant_all(js: JetStreamContext) -> None:
    """Two runs, one of them of a shadow agent, and all that is said about them, read by every service."""
    await plant(js)
    await plant(js, "r-shadow", mode="shadow")
    await caught_up(js)
    await plant_decisions(js)
    await caught_up(js)


def in_files(folder: Path, *more: str) -> list[str]:
    """Files that hold a planted word, each with the words: raw bytes, whatever their format."""
    found = []
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        raw = path.read_bytes().lower()
        found += [f"{path.relative_to(folder)}: {word}" for word in (*PLANTED, *more) if word.encode() in raw]
    return found


async def in_streams(js: JetStreamContext) -> list[str]:
    """Messages that the server still gives and that hold a planted word."""
    found = []
    for info in await js.streams_info():
        name = str(info.config.name)
        state = (await js.stream_info(name)).state
        for seq in range(max(1, state.first_seq), state.last_seq + 1):
            try:
                message = await js.get_msg(name, seq=seq)
            except nats.js.errors.NotFoundError:
                continue
            raw = (message.data or b"").lower() + str(message.headers).encode().lower()
            raw += _decoded(name, message.data or b"")
            found += [f"{name} {seq} {message.subject}: {word}" for word in PLANTED if word.encode() in raw]
    return found


def _decoded(stream: str, raw: bytes) -> bytes:
    if stream != subjects.DEAD:
        return b""
    return msgspec.json.decode(raw, type=control.DeadLetter).data.lower()


class Services:
    """Services in this process, each of which a test may stop and start again."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._tasks = settings, dict[str, asyncio.Task[None]]()

    async def start(self, *names: str, clock: Callable[[], datetime] | None = None) -> None:
        for name in names:
            running = asyncio.Event()
            work = run_services(
                [_by(clock, registry.load(name))],
                self._settings,
                started=lambda _, running=running: running.set(),
                restart=False,
            )
            self._tasks[name] = asyncio.create_task(work)
            done, _ = await asyncio.wait(
                [self._tasks[name], asyncio.create_task(running.wait())],
                return_when=asyncio.FIRST_COMPLETED,
                timeout=30,
            )
            if self._tasks[name] in done:
                self._tasks[name].result()

    async def stop(self, *names: str) -> None:
        for name in names or list(self._tasks):
            task = self._tasks.pop(name)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _by(clock: Callable[[], datetime] | None, service: Service) -> Service:
    """The service by another clock than the wall's."""

    def build(context: Context) -> None:
        context.now = clock or context.now
        service.build(context)

    return Service(service.name, build)


async def tell_of_it(js: JetStreamContext, services: Services) -> None:
    """Starts drift and the digest the morning after, so that both have told of the customer's day. The shop's digest of
    the day before that quotes the customer as well: the case is open when it is written."""
    morning = (utc_now() + timedelta(days=1)).replace(hour=7, minute=0)
    await services.start(subjects.DRIFT, subjects.DIGEST, clock=lambda: morning)

    async def told() -> bool:
        found = await in_streams(js)
        return len({one.split()[1] for one in found if "midwatch.digest." in one and "plantinput" in one}) == 4

    await eventually(told, within=30)


async def caught_up(js: JetStreamContext, within: float = 30.0) -> None:
    """Waits until every consumer has done with its stream."""

    async def done() -> bool:
        for stream in (subjects.RUNS, subjects.GOVERNANCE):
            for info in await js.consumers_info(stream):
                if not await all_read(js, stream, info.name):
                    return False
        return True

    await eventually(done, within=within)
