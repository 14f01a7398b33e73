"""The target `http://…` or `https://…`: an agent that is asked by POST."""

import http.client
import urllib.error
from typing import NoReturn

from midwatch.contracts.trial import TRIAL_LIMIT
from midwatch.runtime.http_post import post

from ..case import Case
from .remote import Unanswered


class HttpAgent:
    """Asks one address."""

    def __init__(self, url: str, within: float) -> None:
        self._url, self._within = url, within

    async def __call__(self, case: Case, body: bytes) -> bytes:
        """The answer to one question. Raises Unanswered."""
        try:
            return await post(self._url, body, {}, self._within, limit=TRIAL_LIMIT + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise
            _say(error)


def _say(error: Exception) -> NoReturn:
    if isinstance(error, urllib.error.HTTPError):
        raise Unanswered(f"the agent answered with status {error.code}") from None
    why = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(why, TimeoutError):
        raise TimeoutError from None
    raise Unanswered(f"the agent cannot be asked: {why or type(error).__name__}") from None
