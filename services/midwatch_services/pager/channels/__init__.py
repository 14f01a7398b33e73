"""The ways to reach people: one module a kind, each with `send`, which raises Failed or Refused."""

from datetime import datetime

from midwatch.errors import MidwatchError

from ..messages import Message
from ..policy import Channel
from . import alertmanager, apprise_url, webhook
from .errors import Failed, Refused

_SEND = {"apprise": apprise_url.send, "webhook": webhook.send, "alertmanager": alertmanager.send}

__all__ = ["Failed", "Refused", "send"]


async def send(channel: Channel, message: Message, now: datetime, within: float) -> None:
    """Brings the message to the channel within so many seconds. Raises Failed, which may pass, or Refused."""
    if channel.broken:
        raise Refused(channel.broken)
    try:
        await _SEND[channel.kind](channel, message, now, within)
    except TimeoutError:
        raise Failed(f"no answer within {within:g} s") from None
    except MidwatchError:
        raise
    except Exception as error:
        # Whatever a library raises, its text may hold the address, which may be a secret.
        raise Failed(f"it cannot be reached ({type(error).__name__})") from None
