"""How a message may not arrive."""

import http.client
import urllib.error

from midwatch.errors import MidwatchError

_MAY_PASS = (408, 425, 429)  # statuses below 500 that say "later"


class Failed(MidwatchError):
    """The channel did not take the message; it may later."""


class Refused(MidwatchError):
    """The channel takes nothing until it is mended."""


def of_http(error: Exception) -> MidwatchError:
    """What an error of a POST means. Its own text may hold the address, and is left out."""
    if isinstance(error, urllib.error.HTTPError):
        return of_status(error.code)
    if isinstance(error, http.client.HTTPException):
        return Failed("it does not answer in HTTP")
    reason = getattr(error, "reason", error)
    text = getattr(reason, "strerror", None) or type(reason).__name__
    return Failed(f"it cannot be reached ({str(text).lower()})")


def of_status(status: int) -> MidwatchError:
    """What a status means that is not of success."""
    text = f"it answers {status} {http.client.responses.get(status, '')}".rstrip()
    return Failed(text) if status >= 500 or status in _MAY_PASS else Refused(text)
