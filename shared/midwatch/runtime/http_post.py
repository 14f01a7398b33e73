"""One POST with a limit in time and no redirects, for those who tell other systems over HTTP."""

import asyncio
import base64
import contextlib
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

ANSWER_LIMIT = 64 * 1024  # bytes of an answer that are read

T = TypeVar("T")


async def post(url: str, body: bytes, headers: Mapping[str, str], within: float, *, limit: int = ANSWER_LIMIT) -> bytes:
    """Posts JSON to an http or https address and returns the first `limit` bytes of the answer's body.

    Raises urllib's HTTPError for a status of 300 and more, OSError, HTTPException, ValueError, or TimeoutError.
    """
    address, more = _without_credentials(url)
    if not address.startswith(("http://", "https://")):
        raise ValueError("the address is neither http nor https")
    usual = {"content-type": "application/json", "user-agent": "midwatch"}
    request = urllib.request.Request(address, body, {**usual, **more, **headers})  # noqa: S310
    return await in_a_thread(lambda: _open(request, within, limit), within, name="webhook")


def _without_credentials(url: str) -> tuple[str, dict[str, str]]:
    """The address as urllib takes it, and the header that carries its user and password."""
    parts = urllib.parse.urlsplit(url)
    if "@" not in parts.netloc:
        return url, {}
    credentials, _, host = parts.netloc.rpartition("@")
    token = base64.b64encode(urllib.parse.unquote(credentials).encode()).decode()
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), {"authorization": f"Basic {token}"}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Whoever is redirected to has not been named, and must not read what is posted."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _open(request: urllib.request.Request, within: float, limit: int) -> bytes:
    opener = urllib.request.build_opener(_NoRedirects())  # anew: certificates and proxies may have changed
    try:
        with opener.open(request, timeout=within) as response:
            answer: bytes = response.read(limit)
            return answer
    except urllib.error.HTTPError as error:
        error.close()
        raise


async def in_a_thread(work: Callable[[], T], within: float, *, name: str) -> T:
    """What `work` returns or raises, in a thread of its own: a pool would wait for it when the process ends. Raises
    TimeoutError where it takes longer than `within` seconds; the thread is left to itself."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(settled: Callable[[Any], None], value: Any) -> None:
        if not outcome.done():
            settled(value)

    def run() -> None:
        try:
            done: tuple[Callable[[Any], None], Any] = (outcome.set_result, work())
        except Exception as error:
            done = (outcome.set_exception, error)
        with contextlib.suppress(RuntimeError):  # nobody waits any more: the loop is closed
            loop.call_soon_threadsafe(settle, *done)

    threading.Thread(target=run, name=name, daemon=True).start()
    async with asyncio.timeout(within):
        return await outcome
