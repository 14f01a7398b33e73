"""What of a process's presence is news to a page: it comes each second, and nearly always says the same."""

from datetime import UTC, datetime

from nats.aio.msg import Msg

from midwatch_services.kill_switch.armed import FRESH
from midwatch_services.kill_switch.registry import read_presence

_MOST = 10_000  # processes that are remembered; what is forgotten is news again

State = tuple[object, ...]


class Changes:
    """Tells when a process comes up, signs off, or obeys the switch otherwise than a moment ago."""

    def __init__(self) -> None:
        self._last: dict[str, State] = {}

    def __call__(self, message: Msg) -> bool:
        state = _state(message)
        if state is None or self._last.get(message.subject) == state:
            return False
        if len(self._last) >= _MOST:
            self._last.clear()
        self._last[message.subject] = state
        return True


def _state(message: Msg) -> State | None:
    said = read_presence(message.subject, message.data, datetime.now(UTC))
    if said is None:
        return None
    is_behind = said.control_age is not None and said.control_age > FRESH
    return said.process, said.left, dict(said.applied), said.lost_control, said.without_control, is_behind
