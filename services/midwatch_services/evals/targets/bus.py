"""The target `nats`: an agent anywhere that answers on its trial subject."""

import nats.errors
from nats.aio.client import Client

from midwatch.contracts import subjects

from ..case import Case
from .remote import Unanswered


class BusAgent:
    """Asks by request on core NATS."""

    def __init__(self, client: Client, within: float) -> None:
        self._client, self._within = client, within

    async def __call__(self, case: Case, body: bytes) -> bytes:
        """The answer to one question. Raises Unanswered."""
        subject = subjects.trial(case.agent)
        if len(body) > self._client.max_payload:
            limit = f"{self._client.max_payload:,} bytes"
            raise Unanswered(f"the conversation is larger than the {limit} that NATS carries: replay it over http")
        try:
            return (await self._client.request(subject, body, timeout=self._within)).data
        except nats.errors.NoRespondersError:
            raise Unanswered(f"nobody answers on {subject}: start the agent, or see that it may listen there") from None
        except nats.errors.TimeoutError:
            raise TimeoutError from None
        except (nats.errors.Error, OSError) as error:
            raise Unanswered(f"NATS does not carry the question: {error or type(error).__name__}") from None
