"""A POST of JSON to any address, signed by the Standard Webhooks scheme."""

from datetime import datetime
from http.client import HTTPException

import msgspec

from midwatch.runtime import webhook_signing as signing
from midwatch.runtime.http_post import post

from ..messages import Message, acknowledge
from ..policy import Channel
from .errors import Refused, of_http


async def send(channel: Channel, message: Message, now: datetime, within: float) -> None:
    """`webhook-id` is the message's id, the same at every attempt. Texts are as they were said, without control
    characters: JSON has no markup, and what shows them has its own escapes."""
    if message.page is not None:
        kind, data = "digest.written" if message.digest else "review.summed", msgspec.to_builtins(message.page)
    else:
        kind = f"alert.{message.what}"
        data = {**msgspec.to_builtins(message), "acknowledge": acknowledge(message.alert_id)}
        del data["digest"], data["summed"]
    body = msgspec.json.encode({"type": kind, "timestamp": now, "data": data})
    try:
        headers = signing.headers(signing.key_of(channel.secret), message.id, body, now)
    except signing.BadSecret as error:
        raise Refused(str(error)) from None
    try:
        await post(channel.url, body, headers, within)
    except TimeoutError:
        raise
    except (OSError, HTTPException, ValueError) as error:
        raise of_http(error) from None
