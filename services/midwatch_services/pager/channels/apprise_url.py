"""Everything that apprise speaks: Slack, PagerDuty, Teams, mail, text messages and a hundred more."""

import logging
import re
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from midwatch.runtime.http_post import in_a_thread

from .. import messages, words
from ..messages import Message
from ..policy import Channel
from .errors import Failed, Refused, of_status

_STATUS = re.compile(r"error\s*[=:]\s*(\d{3})\b")
_ROOM = 64  # characters that a target may put around a body
_MAIL = re.compile(r"^mailtos?://", re.IGNORECASE)
_log = logging.getLogger("apprise")


class _Heard(logging.Handler):
    """What apprise logs of one message: it says in no other way why that was not taken. Nothing of it goes on to our
    log, since addresses and tokens may be in it."""

    def emit(self, record: logging.LogRecord) -> None:
        said = _said.get()
        if said is not None and len(said) < 10:
            said.append(record.getMessage())


_said: ContextVar[list[str] | None] = ContextVar("midwatch_apprise", default=None)  # goes along into apprise's threads
_heard = _Heard(logging.WARNING)


async def send(channel: Channel, message: Message, now: datetime, within: float) -> None:
    """apprise blocks, so it runs in a thread of its own, which ends by the library's own time limits."""
    await in_a_thread(lambda: _notify(channel, message), within, name=f"apprise {channel.name}")


def is_address(url: str) -> bool:
    """Whether apprise knows what to do with `url`."""
    import apprise

    _hear()
    return apprise.Apprise.instantiate(_as_text(url)) is not None


def _notify(channel: Channel, message: Message) -> None:
    import apprise

    _hear()
    by_mail = bool(_MAIL.match(channel.url))
    target = apprise.Apprise.instantiate(_as_html(channel.url) if message.page and by_mail else _as_text(channel.url))
    if target is None:
        raise Refused("apprise does not know this address: see https://appriseit.com/services")
    body, form = messages.body(message), apprise.NotifyFormat.TEXT
    kind: Any = apprise.NotifyType.SUCCESS if message.what == "ended" else apprise.NotifyType.WARNING
    if message.page is not None:
        kind = apprise.NotifyType.INFO
        if by_mail:
            body, form = message.page.html, apprise.NotifyFormat.HTML
        else:
            body = messages.chat(message.page, target.body_maxlen - len(messages.title(message)) - _ROOM)
    several = apprise.Apprise()
    several.add(target)
    said: list[str] = []
    _said.set(said)  # this thread ends with the message
    if not several.notify(title=messages.title(message), body=body, notify_type=kind, body_format=form):
        raise _why(said, channel.url)


def _why(said: list[str], url: str) -> Exception:
    for line in said:
        if (found := _STATUS.search(line)) and int(found[1]) >= 300:
            return of_status(int(found[1]))
    return Failed(_without_secrets(said[-1], url) if said else "apprise says no more")


def _without_secrets(text: str, url: str) -> str:
    """A line of apprise without any part of the address that could be a secret."""
    for part in sorted(re.split(r"[/:@?&=,#]+", url), key=len, reverse=True):
        if len(part) > 3 and part.lower() not in ("mailto", "mailtos", "localhost"):
            text = text.replace(part, "***")
    return words.one_line(text)


def _as_text(url: str) -> str:
    # Mail as plain text: nothing in it can be markup, and every reader shows it.
    if _MAIL.match(url) and "format=" not in url:
        return f"{url}{'&' if '?' in url else '?'}format=text"
    return url


def _as_html(url: str) -> str:
    without = re.sub(r"(?<=[?&])format=[^&]*&?", "", url).rstrip("?&")
    return f"{without}{'&' if '?' in without else '?'}format=html"


def _hear() -> None:
    if _heard not in _log.handlers:
        _log.addHandler(_heard)
    _log.propagate = False
