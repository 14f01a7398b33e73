"""Times, spans and amounts as people type them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from midwatch_services.commands import spans

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def test_a_span_reaches_back_and_a_time_without_a_zone_is_one_of_the_zone() -> None:
    assert spans.span("1.5h") == timedelta(minutes=90)
    assert spans.moment("2d", NOW) == NOW - timedelta(days=2)
    assert spans.moment("2026-11-26T13:00", NOW, ZoneInfo("Europe/Berlin")) == NOW
    assert spans.moment("2026-11-26T12:00Z", NOW, ZoneInfo("Europe/Berlin")) == NOW


@pytest.mark.parametrize(
    ("read", "text", "error"),
    [
        (spans.span, "soon", spans.NoSpan), (spans.span, "9999999999d", spans.TooFarBack),
        (lambda text: spans.moment(text, NOW), "99999999d", spans.TooFarBack),
        (lambda text: spans.moment(text, NOW), "soon", spans.NoTime), (spans.dollars, "NaN", spans.NoAmount),
        (spans.dollars, "-1", spans.NoAmount), (spans.dollars, "1e9", spans.NoAmount),
    ],
)  # fmt: skip
def test_what_is_none_of_these_says_what_to_write(read: object, text: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"write|neither|too far"):
        read(text)  # type: ignore[operator]
