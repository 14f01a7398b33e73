"""What the rules know of an event, of a run and of an agent. Frozen: a decision makes a new one."""

from msgspec import Struct


class Facts(Struct, frozen=True, array_like=True, order=True):
    """What the rules judge of an event, beside its tool and the digest of its call and result."""

    at: float = 0.0  # Unix seconds, by the agent's clock
    call: int | None = None  # digest of a tool call without its result
    ok: bool = False  # of a tool call: it did what it was called for
    write: bool = False  # of a tool call, by its own word
    text: int | None = None  # digest of what the agent said
    hand_off: bool = False  # by the agent's own wish
    tokens: float = 0.0
    dollars: float = 0.0


class Most(Struct, frozen=True, array_like=True):
    """The furthest that a run has gone by one rule: how often, and at which events it began and was last seen.
    `length`: calls of one round, of a cycle."""

    count: int = 0
    first: int | None = None
    last: int | None = None
    tool: str = ""
    length: int = 0


class Pace(Struct, frozen=True, array_like=True):
    """What a run uses in a minute, as of its newest call (`at`, Unix seconds), and the most that it ever was. `first`:
    the event with which it began."""

    at: float = 0.0
    dollars: float = 0.0
    tokens: float = 0.0
    most_dollars: float = 0.0
    most_tokens: float = 0.0
    first: int | None = None


class Usual(Struct, frozen=True, array_like=True):
    """What finished runs of an agent used a minute at their fastest: logarithms of means, and of how many runs."""

    dollars: float = 0.0
    dollar_runs: int = 0
    tokens: float = 0.0
    token_runs: int = 0


NOTHING_USUAL = Usual()
Counts = dict[int, tuple[int, int]]  # digest: how often, and at which event first; the last one seen stands last


class LoopState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one run. Bounded, whatever an agent sends.

    `calls`: the last few tool calls, digest and seq. `same`: for each length of a round, how many calls in a row were
    those of a round before, and the event with which that began. `most`: by rule. `heard`: when its last event came,
    Unix seconds of this process. `stalls_at`: when its silence is to be reported, None where it is not.
    """

    writes: Counts = {}
    texts: Counts = {}
    hand_offs: int = 0
    calls: tuple[tuple[int, int], ...] = ()
    same: tuple[tuple[int, int], ...] = ()
    most: dict[str, Most] = {}
    pace: Pace = Pace()
    learnt: bool = False  # nothing is to be learnt from it (any more)
    heard: float = 0.0
    stalls_at: float | None = None
