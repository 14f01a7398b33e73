"""What people read of the runs: reviews, what is drawn for them and what they say, and digests."""

from typing import Literal

from msgspec import Struct

from .runs import AgentName, Mode

Verdict = Literal["pass", "fail", "unsure"]
Besides = Literal["alert", "hand_off", "cost", "tool", "complaint"]  # why a run is read though it was not drawn
RateCause = Literal["began", "tapered", "failing", "loosened", "version", "drift", "incident", "halt", "card"]


class DigestRun(Struct, frozen=True, kw_only=True):
    """A run that a digest names or quotes."""

    agent: str
    run_id: str


class ReviewSampled(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run was drawn for a person to read: `draw` < `rate`. Anyone can recompute it from the day's key."""

    run_id: str
    agent: AgentName
    rate: float
    draw: float
    day: str  # YYYY-MM-DD, UTC: whose key drew it
    key_hash: str  # SHA-256 of that key, hex
    ticket: str | None = None
    mode: Mode = "live"


class ReviewAdded(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run is to be read though it may not have been drawn: something about it asks for a person. It says nothing of
    how often the agent fails. One event for each cause."""

    run_id: str
    agent: AgentName
    cause: Besides
    what: str = ""  # the alert's rule, the tool, the amount: in words
    ticket: str | None = None
    mode: Mode = "live"


class ReviewRated(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From now on `rate` of the agent's runs is drawn: step `step` of its schedule, where 0 is the first rate. `judged`
    and `failed` are the runs that it was decided by, `upper` the upper bound of their failure rate (Wilson, 95 %)."""

    agent: AgentName
    rate: float
    step: int
    cause: RateCause
    what: str = ""  # the version, the alert's rule, the switch's key
    judged: int = 0
    failed: int = 0
    upper: float | None = None


class ReviewJudged(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reviewer has read a run and says what it was worth. It is one person's word: what stands is `agreed`. `claim`:
    under which the reviewer held the run. `reasons`: of a fail, from the agent's list. `corrected`: what the agent
    should have answered. `seconds`: how long it took to read."""

    run_id: str
    agent: AgentName
    verdict: Verdict
    by: str
    note: str = ""
    ticket: str | None = None
    mode: Mode = "live"
    claim: str = ""
    reasons: list[str] = []
    corrected: str = ""
    seconds: float | None = None


class ReviewAgreed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The verdict that stands on a run: of the one who was asked, of two who did not see one another's, or of most of
    three. It outranks what each said."""

    run_id: str
    agent: AgentName
    verdict: Verdict
    by: list[str]
    note: str = ""
    ticket: str | None = None
    mode: Mode = "live"
    reasons: list[str] = []
    corrected: str = ""
    drawn: bool = True  # by the hash, so that it counts for the failure rate
    version: str = ""


class ReviewDisputed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Two who judged a run blind differ: a third is asked. Who said what is not told before that."""

    run_id: str
    agent: AgentName
    by: list[str]
    ticket: str | None = None
    mode: Mode = "live"


class ReviewSummed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What people corrected in a week of an agent's runs, for whoever writes its prompts."""

    agent: AgentName
    week: str  # ISO 8601, such as 2026-W48
    title: str
    text: str
    markdown: str
    html: str
    brief: str = ""
    runs: list[DigestRun] = []


class ReviewKeyCommitted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The hash of the key that draws on `day`, published before the first draw of it."""

    day: str
    key_hash: str


class ReviewKeyRevealed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The key itself, once its day is over: every draw of the day can be recomputed."""

    day: str
    key: str  # hex
    key_hash: str


class DigestWritten(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent, or on `_fleet` the shop, did on a day, in plain sentences. `brief` is its beginning, for a chat;
    the other texts hold all of it. `words`: of the prose. `runs`: each that it names or quotes, so that it can be
    erased with them."""

    agent: str
    date: str  # YYYY-MM-DD
    title: str
    words: int
    text: str
    markdown: str
    html: str
    brief: str = ""
    runs: list[DigestRun] = []
