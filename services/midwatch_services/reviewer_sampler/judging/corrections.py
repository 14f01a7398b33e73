"""A run that people corrected."""

from msgspec import Struct


class Correction(Struct, frozen=True, kw_only=True):
    """A settled run that failed, or for which somebody wrote what the agent should have answered."""

    agent: str
    run_id: str
    ticket: str | None
    verdict: str
    version: str
    settled_at: float
    reasons: list[str]
    corrected: list[str]
    notes: list[str]
    by: list[str]
