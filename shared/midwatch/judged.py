"""One run as it is judged: shadow, then switch, then canary, then scope. No I/O."""

import weakref

from .contracts import subjects
from .contracts.runs import Mode
from .errors import Halted, NoCard
from .fields import optional
from .keys import CLOCK, CLOSED, OPEN, ROUTE, Halt, gettime
from .order import Order
from .switch import LocalSwitch


class Judged:
    """What switch, route and card let one run do."""

    def __init__(self, switch: LocalSwitch | None, order: Order) -> None:
        self.run_id = order.run_id
        self.mode: Mode = order.mode
        self._order = order
        self._switch = switch
        self._halt: Halt | None = None  # latched: this run will not go on, whatever the switch says later
        self._gate = switch.gate if switch is not None else OPEN
        self._acts = order.mode != "shadow"
        self._routed = order.mode == "live"  # eval, replay and drill are what the route does not change
        self._drawn_by = optional(order.ticket) or order.run_id
        self._raised: weakref.WeakSet[Halted] = weakref.WeakSet()
        self._begun = False
        self._over = False

    # What users call.

    def check(self, tool: str | None = None) -> None:
        """Raises Halted if the run, or this tool of it, may not go on. A read of local memory."""
        if gettime(*CLOCK) < self._gate.until:
            return
        halt = self._halt or self._judge(tool) or self._stopped_otherwise()
        if halt is not None:
            raise self._halted(halt)

    @property
    def acts(self) -> bool:
        """False in shadow: tools that are not known to read are not called, and `finish` only proposes its answer."""
        return self._acts

    @property
    def halted(self) -> bool:
        """Whether the run may not go on."""
        return (self._halt or self._judge(None) or self._stopped_otherwise()) is not None

    # For the run.

    def _stopped_otherwise(self) -> Halt | None:
        """What neither switch nor route say: nothing here."""
        return None

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for this run's answer: only then it falls back, and leaves a case."""
        return self.mode in ("live", "drill")

    def _judge(self, tool: str | None) -> Halt | None:
        """Switch first, then route: that draws a canary's tickets as a run begins, and later only stops what acts."""
        if self._switch is None:
            return None
        halt = self._switch.judge(self.run_id, tool)
        if halt is None and self._routed:
            standing = self._switch.route.standing
            halt = standing.stops if self._begun else standing.turns_away(self._drawn_by)
        return halt

    def _latch(self, halt: Halt | None) -> bool:
        if halt is not None and self._halt is None and not self._over:
            self._halt = halt
            self._gate = CLOSED
        return self._halt is not None

    def _halted(self, halt: Halt) -> Halted:
        """The error to raise for `halt`, known as this run's own."""
        self._latch(halt)
        error = Halted(reason=halt.reason, by=halt.by, key=halt.key, epoch=halt.epoch)
        self._raised.add(error)
        return error

    def _judge_beginning(self, switch: LocalSwitch) -> None:
        """Shadow, then switch, then canary, then scope. What is halted begins all the same, and falls back."""
        taken = subjects.CASE_LABEL in (
            self._order.labels or {}
        )  # since an instance took the case, somebody waits for it
        if self._routed and switch.route.standing.stage == "shadow" and not taken:
            self._acts = self._routed = False
            self.mode = "shadow"
        halt = self._judge(None)
        # Where not even its key was ever written, nobody has applied this agent.
        if switch.card_state == "absent" and (halt is None or (halt.key in switch.keys and halt.epoch is None)):
            raise NoCard(agent=self._order.agent)
        if halt is not None and halt.key == ROUTE:
            self._latch(halt)
