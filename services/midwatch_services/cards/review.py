"""What a card says of reviews: which share of runs people read, how it falls, and what they are asked."""

from typing import Annotated

from pydantic import AfterValidator, Field, StrictInt, ValidationInfo, field_validator

from midwatch.contracts import control

from . import values
from .base import Section
from .fields import Count, Limit, Money, Period, Reason, Share, ToolName, Word, with_other


class Besides(Section):
    """Runs that are read though they were not drawn; they say nothing of how often the agent fails."""

    alerts: bool = Field(
        default=control.BesidesRule().alerts, description="Runs with an alert that pages or is a ticket"
    )
    hand_offs: bool = Field(
        default=control.BesidesRule().hand_offs, description="Hand-offs with neither a summary nor context"
    )
    cost: Money | None = Field(default=None, description="Runs that cost more than so many US dollars")
    tools: list[ToolName] = Field(default=[], description="Runs that called one of these tools")
    complaints: list[Word] = Field(
        default=list(control.BesidesRule().complaints), description="Runs whose customer used one of these words"
    )


class Review(Section):
    """The share of runs that is drawn for people to read, how it falls, and what they are asked."""

    rate: Share = Field(default=control.ReviewRule().rate, description="For the first days; 10% to 25% is advised")
    days: Count = Field(default=control.ReviewRule().days, description="For which the first rate holds")
    taper: list[Share] = Field(
        default=list(control.ReviewRule().taper), description="The rates after that, each below the one before"
    )
    fail_limit: Limit = control.ReviewRule().fail_limit
    minutes_a_day: Annotated[StrictInt, Field(ge=0)] = Field(
        default=control.ReviewRule().minutes_a_day, description="What reviewers have for this agent; 0 for no limit"
    )
    second_review: Share = Field(
        default=control.ReviewRule().second_review, description="Share that another person reads as well, blind"
    )
    reasons: Annotated[list[Reason], AfterValidator(with_other)] = Field(
        default=list(control.REASONS), description="What a fail may be called; `other` is one of them"
    )
    claim: Period = control.ReviewRule().claim
    age: Period = control.ReviewRule().age
    besides: Besides = Besides()

    @field_validator("taper")
    @classmethod
    def _falls(cls, value: list[float], info: ValidationInfo) -> list[float]:
        before = info.data.get("rate")
        for share in value:
            if before is not None and share >= before:
                shown = f"{values.percent(share)} is not below {values.percent(before)}"
                raise ValueError(f"must fall from `rate` on, step by step: {shown}")
            if share == 0:
                raise ValueError("must stay above 0%: where nobody reads, nobody sees that it fails")
            before = share
        return value
