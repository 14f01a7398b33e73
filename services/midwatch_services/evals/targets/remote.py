"""An agent that is asked for one answer after another, over whatever carries the question: HTTP or NATS."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec

from midwatch.contracts.envelope import new_id, utc_now
from midwatch.contracts.trial import TRIAL_LIMIT, TrialAnswer, TrialCall, TrialMessage, TrialTurn
from midwatch.errors import MidwatchError
from midwatch.fields import to_cost, to_usage

from ..billed import Billed
from ..case import Case, Missing
from ..desk import Answer, Desk, NoAnswer, normal
from ..outcome import Called, Outcome
from ..wire import Report
from .base import outcome

ROUNDS = 100  # answers with calls to one turn, after which it is given up

Ask = Callable[[Case, bytes], Awaitable[bytes]]


class Unanswered(MidwatchError):
    """There is no answer: the message says why."""


class RemoteTarget:
    """Holds each case's conversation with the agent, whose tools it answers."""

    history = False

    def __init__(self, ask: Ask, version: str, within: float, missing: Missing | None) -> None:
        self._ask, self._version, self._within, self._missing = ask, version, within, missing

    async def replay(self, case: Case, attempt: int) -> Outcome:
        talk = _Talk(case, self._version, Desk(case, self._missing), self._ask)
        began, error = time.perf_counter(), None
        try:
            for number, text in enumerate(case.turns, 1):
                talk.hear(text)
                try:
                    async with asyncio.timeout(self._within):
                        goes_on = await talk.answer(number)
                except TimeoutError:
                    raise Unanswered(f"the agent gave no answer to turn {number} within {self._within:g} s") from None
                if not goes_on:
                    break
        except (Unanswered, NoAnswer) as wrong:
            error = str(wrong)
        report = Report(
            said=talk.said, calls=talk.calls, handed_off=talk.handed_off, billed=talk.billed, error=error,
            seconds=round(time.perf_counter() - began, 6),
        )  # fmt: skip
        return outcome(report, utc_now())


class _Talk:
    def __init__(self, case: Case, version: str, desk: Desk, ask: Ask) -> None:
        self.said: list[str] = []
        self.calls: list[Called] = []
        self.billed: list[Billed] = []
        self.handed_off = False
        self._case, self._version, self._desk, self._ask = case, version, desk, ask
        self._run_id = f"eval-{new_id()}"
        self._messages = [TrialMessage(role=one.role, text=one.text) for one in case.earlier]

    def hear(self, text: str) -> None:
        """The customer says something."""
        self._messages.append(TrialMessage(role="customer", text=text))

    async def answer(self, number: int) -> bool:
        """Asks until the agent has answered the turn. Whether the conversation goes on."""
        for _ in range(ROUNDS):
            answer = await self._next(number)
            if answer.say:
                self.said.append(answer.say)
            calls = [
                call if call.id else msgspec.structs.replace(call, id=f"call-{len(self.calls) + place}")
                for place, call in enumerate(answer.calls, 1)
            ]
            if answer.say or calls:
                self._messages.append(TrialMessage(role="agent", text=answer.say or "", calls=calls))
            self._messages += [self._call(call) for call in calls]
            self.handed_off = self.handed_off or answer.hand_off is not None
            if self.handed_off or answer.done:
                return False
            if not calls:
                if answer.say is None:
                    raise Unanswered("the agent's answer holds nothing: give say, calls, hand_off or done")
                return True
        raise Unanswered(f"the agent called tools {ROUNDS} times in turn {number} and never answered")

    async def _next(self, number: int) -> TrialAnswer:
        turn = TrialTurn(
            case=self._case.name, run_id=self._run_id, agent=self._case.agent, version=self._version, turn=number,
            messages=self._messages,
        )  # fmt: skip
        body = await self._ask(self._case, msgspec.json.encode(turn))
        if len(body) > TRIAL_LIMIT:
            raise Unanswered(f"the agent's answer is larger than {TRIAL_LIMIT:,} bytes")
        try:
            answer = msgspec.json.decode(body, type=TrialAnswer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Unanswered(f"the agent's answer cannot be read: {error}") from None
        if answer.model or answer.usage or answer.cost_usd is not None:
            self.billed.append(
                Billed(
                    model=answer.model or "unknown", provider=answer.provider, usage=to_usage(answer.usage),
                    cost_usd=to_cost(answer.cost_usd),
                )
            )  # fmt: skip
        return answer

    def _call(self, call: TrialCall) -> TrialMessage:
        asked, lacking = normal(call.arguments), None
        try:
            answer = self._desk.answer(call.tool, asked)
        except NoAnswer as error:
            answer, lacking = Answer(None, str(error), "missing"), error
        self.calls.append(
            Called(
                tool=call.tool, arguments=asked, result=answer.result, error=answer.error,
                kind=self._desk.kind(call.tool), answered=answer.answered,
            )
        )  # fmt: skip
        if lacking is not None:
            raise lacking
        return TrialMessage(role="tool", id=call.id, tool=call.tool, result=answer.result, error=answer.error)
