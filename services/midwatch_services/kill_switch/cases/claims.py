"""The bucket in which each key can be created once: who creates it first sees to the case, or has the offer."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError

from midwatch.contracts import control, subjects
from midwatch.contracts.codec import Refused
from midwatch.contracts.control import CaseClaim
from midwatch.contracts.envelope import new_id, utc_now
from midwatch.errors import Temporary

_EXISTS = 10077  # error code of nats-server: the key has its one message already
_WINDOW = 100  # claims under way at once
_TIME_LIMIT = 2.0  # seconds for one answer
_TRIES = 3
_OFFER = "offer="
_PREFIX = subjects.key_subject(subjects.CASES, "")


class Claimed(NamedTuple):
    """A key that was created: of a case, or of an offer."""

    key: str
    claim: CaseClaim

    @property
    def offer(self) -> bool:
        return self.key.partition(".")[2].startswith(_OFFER)


def decode(subject: str, body: bytes) -> Claimed:
    """A message of the stream behind the bucket. Raises Refused where it claims another key than its own."""
    key = subject.removeprefix(_PREFIX)
    try:
        claim = msgspec.json.decode(body, type=CaseClaim)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refused("malformed", f"the claim {key} cannot be read: {error}") from None
    claimed = Claimed(key, claim)
    meant = subjects.case_key(claim.agent, claim.run_id)
    if claimed.offer:
        meant = subjects.offer_key(key.partition(".")[0], claim.agent, claim.run_id)
    if key != meant:
        raise Refused("wrong_agent", f"the key {key} holds a claim of {meant}")
    return claimed


class Claims:
    """Creates keys of the bucket, many at once."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js
        self._stream = subjects.key_stream(subjects.CASES)

    async def create(self, key: str, claim: CaseClaim) -> CaseClaim:
        """What stands at `key` afterwards: `claim`, or what somebody else was faster to put there. Raises Temporary
        where the server does not say."""
        body, id = control.encode(claim), new_id()
        for _ in range(_TRIES):
            try:
                # By its id the server knows a claim that is said again because its answer was lost.
                await self._js.publish(
                    subjects.key_subject(subjects.CASES, key), body, _TIME_LIMIT, headers={subjects.MSG_ID: id}
                )
                return claim
            except APIError as error:
                if error.err_code == _EXISTS:
                    if standing := await self.standing(key):
                        return standing
                    continue  # it aged out meanwhile
                raise Temporary(f"the case {key} could not be claimed: {error}") from error
            except (NatsError, TimeoutError):
                continue
        raise Temporary(f"the case {key} could not be claimed: no answer from NATS")

    async def create_all(self, wanted: Sequence[tuple[str, CaseClaim]]) -> list[CaseClaim]:
        """`create` for many keys, a window of them at once."""
        found: list[CaseClaim] = []
        for start in range(0, len(wanted), _WINDOW):
            window = wanted[start : start + _WINDOW]
            found += await asyncio.gather(*(self.create(key, claim) for key, claim in window))
        return found

    async def standing(self, key: str) -> CaseClaim | None:
        """What stands at `key`, by the stream's leader."""
        try:
            message = await self._js.get_last_msg(self._stream, subjects.key_subject(subjects.CASES, key))
        except NotFoundError:
            return None
        try:
            return decode(message.subject or "", message.data or b"").claim
        except Refused:  # somebody has it, whoever that is
            agent = key.partition(".")[0]
            return CaseClaim(agent=agent, run_id="?", by="?", to="?", at=message.time or utc_now())
