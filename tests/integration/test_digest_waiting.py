"""What a digest tells of cases and reviews that wait, and how little it reads of them however many there are."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from digest_helpers import log, section
from kept_helpers import a_case, a_review, insert
from midwatch.contracts import subjects
from midwatch.contracts.erasure import ErasedRun
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.digest.decide import Digest
from midwatch_services.digest.policy import Policy
from midwatch_services.digest.sources import Sources
from midwatch_services.kill_switch import tables as switch
from midwatch_services.logger.erasure import store as erasures
from midwatch_services.reviewer_sampler import tables as sampler

SEVEN = datetime(2026, 11, 26, 7, tzinfo=UTC)
CASES, QUEUE = switch.Case.__tablename__, sampler.Queued.__tablename__


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def of_either_kind(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    return settings.model_copy(update={"database_url": url})


def keep(settings: Settings, cases: list[dict[str, Any]], reviews: list[dict[str, Any]]) -> None:
    log(settings, [])
    insert(settings, subjects.KILL_SWITCH, switch.Case, cases)
    insert(settings, subjects.REVIEWER_SAMPLER, sampler.Queued, reviews)


def written(settings: Settings, agent: str | None = None, mode: str = "live", **policy: Any) -> Digest:
    with Sources(settings, Policy(**policy)) as sources:
        return sources.digest(SEVEN.date() - timedelta(days=1), agent, SEVEN, mode=mode)


def waits(digest: Digest) -> list[str]:
    """What is said of cases and of reviews."""
    told = section(digest, "What waits")
    return [one for one in told if "case" in one or "customer of" in one or "reviewer" in one]


def named(digest: Digest, beginning: str) -> tuple[list[str], int]:
    """Whom the sentence names that begins so, and of how many it speaks."""
    found = next(one for one in digest.sentences if one.text.startswith(beginning))
    return [source.name for source in found.sources], found.total


def test_each_case_is_told_as_waiting_or_as_in_the_hands_of_whoever_has_it(of_either_kind: Settings) -> None:
    def case(number: int, hours: int, **fields: Any) -> dict[str, Any]:
        return a_case(number, SEVEN - timedelta(hours=hours), **fields)

    cases = [
        case(1, 3), case(2, 9, asked="Where is my refund?"), case(3, 5, agent="post-room"), case(4, 30, state="closed"),
        case(5, 31, state="claimed"), case(6, 32, mode="drill"), case(7, 6, state="taken", taken_by="bob"),
        case(8, 8, state="taken", taken_by="ann", taker="agent:clerk"), case(10, 4, state="taken", taken_by="ann"),
        case(9, 7, state="offered", taker="agent:clerk"),
    ]  # fmt: skip
    keep(of_either_kind, cases, [a_review("over", 1, 2)])

    shop = written(of_either_kind, cases=2)
    assert waits(shop) == [
        "3 cases wait for a person.",
        "A customer of desk who wrote “Where is my refund?” has waited for 9 hours.",
        "A customer of post-room has waited for 5 hours.",
        "4 cases are in hand with agent:clerk, ann and bob.",
        "No run waits for a reviewer.",
    ]
    assert named(shop, "3 cases") == (["case-2", "case-3", "case-1"], 3)
    assert named(shop, "4 cases") == (["case-8", "case-9", "case-7"], 4)
    assert waits(written(of_either_kind, "post-room")) == [
        "1 case waits for a person.", "A customer of post-room has waited for 5 hours.", "No run waits for a reviewer.",
    ]  # fmt: skip
    assert waits(written(of_either_kind, mode="drill"))[:2] == [
        "1 case waits for a person.", "A customer of desk has waited for 32 hours.",
    ]  # fmt: skip


def test_the_runs_that_want_a_judge_are_counted_and_the_newest_named(of_either_kind: Settings) -> None:
    reviews = [
        a_review("r-1", 10), a_review("r-2", 50, state="judged"), a_review("r-3", 30, state="disputed"),
        a_review("r-4", 20), a_review("r-5", 60, agent="post-room"), a_review("over", 90, 95),
        a_review("erased", 91, state="erased"), a_review("drill", 92, mode="drill"),
        a_review("replayed", 93, mode="replay", track="replay-1"),
    ]  # fmt: skip
    keep(of_either_kind, [a_case(1, SEVEN, state="closed")], reviews)

    assert named(written(of_either_kind), "5 runs wait for a reviewer.") == (["r-5", "r-2", "r-3"], 5)
    assert named(written(of_either_kind, "desk"), "4 runs wait for a reviewer.") == (["r-2", "r-3", "r-4"], 4)
    assert named(written(of_either_kind, mode="replay"), "1 run waits for a reviewer.") == (["replayed"], 1)
    assert waits(written(of_either_kind, "nobody")) == ["No case waits for a person.", "No run waits for a reviewer."]


def test_what_a_customer_wrote_is_not_told_once_the_log_has_the_run_as_erased(settings: Settings) -> None:
    cases = [a_case(number, SEVEN - timedelta(hours=2), asked=f"Planted {number}") for number in (1, 2)]
    keep(settings, cases, [a_review("over", 1, 2)])
    database = Database(settings.database_for(subjects.LOGGER), name=subjects.LOGGER)
    gone = ErasedRun(agent="desk", run_id="r-1", tickets=[])
    database.write_now(lambda conn: erasures.remember(conn, "er-0123456789ab", [gone]))
    database.close()
    assert waits(written(settings))[1:3] == [
        "A customer of desk has waited for 2 hours.",
        "A customer of desk who wrote “Planted 2” has waited for 2 hours.",
    ]


@contextmanager
def noted() -> Iterator[list[tuple[str, Any]]]:
    """What databases are asked meanwhile about cases and the review queue."""
    asked: list[tuple[str, Any]] = []

    def note(conn: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if CASES in statement or QUEUE in statement:
            asked.append((statement, values))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def test_no_more_cases_and_reviews_are_read_than_are_told(settings: Settings) -> None:
    cases = [a_case(number, SEVEN, state="taken" if number % 2 else "open", taken_by="ann") for number in range(200)]
    keep(settings, cases, [a_review(f"r-{number}", number) for number in range(200)])
    with noted() as asked:
        told = waits(written(settings, cases=8))
    assert (told[0], len(told), told[-1]) == ("100 cases wait for a person.", 11, "200 runs wait for a reviewer.")

    def rows(service: str, table: str) -> list[int]:
        database = Database(settings.database_for(service))
        mine = [one for one in asked if table in one[0]]
        found = database.read_now(lambda conn: [len(conn.exec_driver_sql(*one).all()) for one in mine])
        database.close()
        return found

    assert rows(subjects.KILL_SWITCH, CASES) == [2, 8, 3], "nobody and Ann, those told one by one, those named"
    assert rows(subjects.REVIEWER_SAMPLER, QUEUE) == [1, 3]
