"""Every error of ours. The docstring of a class is its message, and says what to do."""

from typing import Any


class MidwatchError(Exception):
    """Something in Midwatch went wrong."""

    def __init__(self, message: str | None = None, **fields: Any) -> None:
        text = message or " ".join((self.__doc__ or "").split()).format(**fields)
        super().__init__(text)
        self.fields = fields


class NoCard(MidwatchError):
    """No scope card is applied for agent {agent!r}: write one with `midwatch card new {agent}`, then
    `midwatch apply agents/{agent}.yaml`."""


class BadAgentName(MidwatchError):
    """{agent!r} is no agent's name: use lower-case letters, digits, `-` and `_`, at most 63, beginning with a letter
    or digit."""


class NotConnected(MidwatchError):
    """There is no connection yet: use `async with midwatch.connect() as mw:` before you ask for an agent."""


class Temporary(MidwatchError):
    """It may work later: try again in {delay:g} s."""

    def __init__(self, message: str | None = None, *, delay: float = 1.0) -> None:
        super().__init__(message, delay=delay)
        self.delay = delay


class Misconfigured(MidwatchError):
    """It cannot begin, and no restart mends it."""


class Permanent(MidwatchError):
    """It will never work as it is: {reason}."""

    def __init__(self, message: str | None = None, *, reason: str = "failed") -> None:
        super().__init__(message, reason=reason)
        self.reason = reason


class Halted(BaseException):
    """The switch stopped this run. A BaseException, so that `except Exception` in an agent cannot swallow it."""

    def __init__(self, *, reason: str, by: str, key: str, epoch: int | None = None) -> None:
        super().__init__(f"halted by {by or 'the switch'} ({key}): {reason or 'no reason given'}")
        self.reason = reason
        self.by = by
        self.key = key
        self.epoch = epoch
