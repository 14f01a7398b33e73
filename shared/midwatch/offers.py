"""Offers: cases that other agents left, taken by an agent of this process.

The router in kill-switch offers a case to one instance of the agent. It is taken by creating the offer's key before the
router does: of two takers, and of a taker and the router that gives up on it, one has the case.
"""

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nats.aio.msg import Msg

from . import cases
from .contracts import codec, control, subjects
from .contracts.control import CaseClaim
from .contracts.envelope import utc_now
from .contracts.governance import CaseAccepted, CaseOffered, CaseOpened
from .errors import Halted
from .fields import to_text
from .order import Case
from .record import BaseRun
from .switch import clock
from .trace import Tracer

if TYPE_CHECKING:
    from . import blocking
    from .agent import Agent, BaseAgent

log = logging.getLogger("midwatch")

Heard = Callable[[CaseOffered], object]

QUEUE = "midwatch-cases"  # of all instances of an agent, one hears an offer
BEGIN_WITHIN = 25.0  # seconds from an offer to its run; after 30 the router gives the case to people


def read(msg: Msg) -> CaseOffered | None:
    """The offer in a message, or None where it is none."""
    try:
        offer = codec.decode(msg.subject, msg.data).data
    except codec.Refused as error:
        log.warning("midwatch: an offer on %s cannot be read: %s", msg.subject, error)
        return None
    taker = msg.subject.split(".")[2]
    if not isinstance(offer, CaseOffered) or offer.taker != taker or not offer.offer_key.startswith(f"{taker}."):
        log.warning("midwatch: what is offered on %s is meant for another agent", msg.subject)
        return None
    return offer


def take(desk: "Agent", function: Callable[..., Any]) -> Heard:
    """Has `function` handle what is offered, in the loop that runs now. Returns what is to hear the offers."""
    loop, busy = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    async def handle(offer: _Offer) -> None:
        run = desk.run(**offer.asks)
        if not offer.may_be_taken(run):
            return
        key, value, within = offer.claim()
        if not await cases.known(desk.engine.claim(key, value, within), within) or offer.forfeited:
            return
        offer.accept()
        with _apart(offer.opened):
            async with run:
                answer = function(offer.case, run)
                run.conclude(await answer if inspect.isawaitable(answer) else answer)

    def begin(offer: _Offer) -> None:
        task = loop.create_task(handle(offer))
        busy.add(task)
        task.add_done_callback(busy.discard)

    return lambda offered: loop.call_soon_threadsafe(begin, _Offer(desk, offered))


def take_in_threads(desk: "blocking.Agent", function: Callable[..., Any]) -> Heard:
    """As `take`, each case in a thread of its own."""

    def handle(offer: _Offer) -> None:
        run = desk.run(**offer.asks)
        if not offer.may_be_taken(run):
            return
        key, value, within = offer.claim()
        try:
            ours = desk.engine.claim(key, value, within).result(within)
        except TimeoutError:
            return
        if ours and not offer.forfeited:
            offer.accept()
            with _apart(offer.opened), run:
                run.conclude(function(offer.case, run))

    def begin(offered: CaseOffered) -> None:
        offer = _Offer(desk, offered)
        threading.Thread(target=handle, args=(offer,), name=offered.case.case_id, daemon=True).start()

    return begin


class _Offer:
    """One offer to an agent of this process, from its being heard to its being accepted."""

    def __init__(self, desk: "BaseAgent[Any]", offered: CaseOffered) -> None:
        self.opened = offered.case
        self._offered = offered
        self._desk = desk
        self._heard = clock()

    @property
    def asks(self) -> dict[str, Any]:
        """What the case asks of the run in which it is handled."""
        case = self.opened
        return {
            "input": case.input, "ticket": case.ticket, "customer": case.customer, "channel": case.channel,
            "session": case.session, "labels": {subjects.CASE_LABEL: case.case_id}, "obey": True,
        }  # fmt: skip

    @property
    def case(self) -> Case:
        """The case as its handler is given it."""
        case = self.opened
        return Case(
            case_id=case.case_id, agent=case.agent, run_id=case.run_id, ticket=case.ticket, input=case.input,
            reason=case.reason, events=list(case.events), chain=tuple(case.chain), doubt=case.doubt,
        )  # fmt: skip

    def may_be_taken(self, run: BaseRun) -> bool:
        """Whether it is not too late, and `run` could act: else others are to have the case."""
        engine, switch = self._desk.engine, self._desk.engine.follow(self._desk.name, self._desk.version)
        late = clock() - self._heard > self._offered.within
        idle = run.halted or switch.lapsed or switch.route.standing.stage == "shadow"
        return not (late or idle or switch.card_state != "present" or engine.closed)

    def claim(self) -> tuple[str, bytes, float]:
        """Key and value by which the case is taken, and the seconds for which an answer is waited for."""
        case = self.opened
        value = CaseClaim(
            agent=case.agent, run_id=case.run_id, by=self._desk.engine.instance, to=f"agent:{self._desk.name}",
            at=utc_now(), key=case.key, epoch=case.epoch, reason=to_text(case.reason)[: cases.REASON],
        )  # fmt: skip
        # Longer than the offer stands: where an answer was lost the case may be ours, and nobody else's then.
        return self._offered.offer_key, control.encode(value), BEGIN_WITHIN

    @property
    def forfeited(self) -> bool:
        """Whether it took so long that people may have the case, though it was ours."""
        return clock() - self._heard > BEGIN_WITHIN

    def accept(self) -> None:
        """Tells everyone that this instance has the case: through the spool, so that they come to know it."""
        taker, engine, case = self._desk.name, self._desk.engine, self.opened
        accepted = codec.envelope(
            "case", "accepted", CaseAccepted(case_id=case.case_id, by=engine.instance),
            source=f"/agents/{taker}/{engine.instance}", subject=case.run_id,
        )  # fmt: skip
        traceparent = Tracer(case.run_id).traceparent()
        engine.append(subjects.case(taker, "accepted"), accepted.id, traceparent, codec.encode(accepted))


@contextmanager
def _apart(case: CaseOpened) -> Iterator[None]:
    """What goes wrong while a case is handled stands in its run, and breaks nothing else."""
    try:
        yield
    except Halted as halted:
        log.info("midwatch: %s goes on to others: %s", case.case_id, halted)
    except Exception:
        log.exception("midwatch: %s failed in its handler", case.case_id)
