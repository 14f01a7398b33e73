"""A reviewer's side: takes runs, gives them back, says what they are worth. Needs NATS alone."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from midwatch.contracts import codec, subjects
from midwatch.contracts.claims import Hold, Take, Taken
from midwatch.contracts.reviews import ReviewJudged
from midwatch.errors import MidwatchError

WITHIN = 5.0  # seconds for an answer
INBOX = "_INBOX.reviewer"  # where a reviewer's rights let answers come in
_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Taken)


class NobodyAnswers(MidwatchError):
    """No reviewer-sampler answers ({why}): start it with `midwatch run reviewer-sampler` or `midwatch up`."""


class NotAnswered(MidwatchError):
    """The request was not judged: {why}"""


def left(held: Taken) -> float:
    """The seconds for which it is held from now on, if it was answered just now. Our own clock counts only where the
    answer does not say."""
    if held.seconds_left is not None:
        return held.seconds_left
    return max(0.0, (held.until - datetime.now(UTC)).total_seconds()) if held.until else 0.0


class Desk:
    """What one person does over a connection."""

    def __init__(self, nc: Client, by: str, source: str = "/people/command-line") -> None:
        """`source`: what the person uses."""
        self._nc, self.by, self._source = nc, by, source
        self._js = nc.jetstream()

    async def take(
        self, *, agent: str | None = None, run_id: str | None = None, skip: Sequence[str] = (), claim: str = ""
    ) -> Taken:
        """The next run that this person may judge, held from now on; without `run_id` there is none. Raises
        MidwatchError."""
        ask = Take(claim=claim or uuid4().hex, by=self.by, agent=agent, run_id=run_id, skip=list(skip))
        return await self._ask("take", agent, ask)

    async def extend(self, held: Taken) -> Taken:
        """Holds it for longer. Raises MidwatchError."""
        return await self._ask("extend", held.agent, Hold(claim=held.claim, by=self.by))

    async def release(self, held: Taken) -> Taken:
        """Gives it back unjudged. Raises MidwatchError."""
        return await self._ask("release", held.agent, Hold(claim=held.claim, by=self.by))

    async def judge(self, data: ReviewJudged, id: str | None = None) -> None:
        """Says it, once for each `id`, acknowledged by the stream. Raises NatsError or TimeoutError without that."""
        envelope = codec.envelope("review", "judged", data, source=self._source, subject=data.run_id, id=id)
        headers = {subjects.MSG_ID: envelope.id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
        await self._js.publish(
            subjects.review(data.agent, "judged"), codec.encode(envelope), timeout=WITHIN, headers=headers
        )

    async def _ask(self, verb: str, agent: str | None, ask: Take | Hold) -> Taken:
        subject = subjects.claim(agent or subjects.FLEET, verb)
        try:
            answer = _decoder.decode((await self._nc.request(subject, _encode(ask), timeout=WITHIN)).data)
        except NoRespondersError:
            raise NobodyAnswers(why="nobody listens") from None
        except TimeoutError:
            raise NobodyAnswers(why=f"not within {WITHIN:g} s") from None
        except (NatsError, msgspec.MsgspecError) as error:
            raise NobodyAnswers(why=str(error) or type(error).__name__) from error
        if answer.error is not None:
            raise NotAnswered(why=answer.reason or answer.error)
        return answer
