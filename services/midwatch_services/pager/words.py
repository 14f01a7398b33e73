"""Text that agents and others wrote, made fit for a message to people. Pure."""

import re
from datetime import timedelta
from hashlib import sha256
from urllib.parse import urlsplit

TITLE_LIMIT = 300  # characters
FIELD_LIMIT = 200
KEY_LIMIT = 256
_TOKEN = re.compile(r"[A-Za-z0-9._-]{1,100}")
_LINK = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._~/%?=&#+,:;@!$'-]*)?")
# What Slack, Discord, Telegram, Teams, Markdown and HTML read as more than text, as the nearest character that they do
# not: escapes differ from each to each, and some have none.
_PLAIN = str.maketrans(
    {"<": "‹", ">": "›", "`": "ʼ", "*": "∗", "[": "［", "]": "］", "@": "＠", "|": "｜", "~": "∼",
     "\\": "＼", "&": "＆", "#": "＃"}
)  # fmt: skip


def one_line(text: str, limit: int = FIELD_LIMIT) -> str:
    """`text` in one line of at most `limit` characters, without what could steer a terminal or a pager."""
    text = "".join(char if char.isprintable() else " " for char in text[: 4 * limit])
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def key(text: str) -> str:
    """`text` as tables and their indexes can hold it: one that is too long is known by its digest."""
    if len(text) <= KEY_LIMIT:
        return text.replace("\0", "\ufffd")
    return f"{one_line(text, 64)}#{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def token(text: str) -> str:
    """`text` as a header may carry it: its digest, where it is more than letters, digits, `.`, `-` and `_`."""
    return text if _TOKEN.fullmatch(text) else sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def plain(text: str) -> str:
    """`text` so that no target reads markup, a mention or a link in it."""
    return text.translate(_PLAIN).replace("://", ":／／")


def evidence(text: str, limit: int = FIELD_LIMIT) -> str:
    """A link as it is, if it is nothing but a link; other text made plain."""
    return text if len(text) <= 500 and _LINK.fullmatch(text) else plain(one_line(text, limit))


def span(length: timedelta) -> str:
    """A length of time as people say it: `45 s`, `10 min`, `2 h 5 min`."""
    seconds = max(0, round(length.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes and hours < 48 else f"{hours} h"


def scheme_and_host(url: str) -> str:
    """All of an address that may be shown: its rest may be a secret. Of a scheme of apprise the host may be one too."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "mailto", "mailtos"):
        return f"{parts.scheme}://…" if parts.scheme else "…"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}"
