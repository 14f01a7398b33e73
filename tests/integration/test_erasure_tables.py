"""What services hold of a run in tables that no published event fills by itself in a test."""

from pathlib import Path

import msgspec
import sqlalchemy as sa
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from drift_helpers import Log, facts, log_run
from logged import NOON
from midwatch.contracts import subjects
from midwatch.contracts.erasure import ErasedRun, ErasureResolved
from midwatch.contracts.reviews import DigestRun, DigestWritten
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.outbox import Outbox, Outgoing
from midwatch.runtime.settings import Settings
from midwatch_services.digest import erasing as digest
from midwatch_services.digest import render
from midwatch_services.digest import store as digests
from midwatch_services.digest.facts import Case
from midwatch_services.digest.policy import POLICY
from midwatch_services.digest.sources import Sources
from midwatch_services.drift import erasing as drift
from midwatch_services.drift import reading
from midwatch_services.drift import store as drifts
from midwatch_services.drift.decide import Finding, Verdict
from midwatch_services.logger import daily
from midwatch_services.logger.decide import text_of
from midwatch_services.logger.erasure import log as erased_log
from midwatch_services.logger.erasure import store as erasures
from midwatch_services.pager import erasing as pager
from midwatch_services.pager import messages, queue
from midwatch_services.pager.messages import Message
from midwatch_services.reviewer_sampler import erasing as sampler

PART = ErasureResolved(
    erasure_id="er-0123456789ab", part=1, upto=0, alerts=["a-1"],
    runs=[ErasedRun(agent="desk", run_id="r-1", tickets=["T-planted"])],
)  # fmt: skip


def opened(folder: Path, service: str) -> Database:
    url = f"sqlite:///{folder}/{service}.db"
    migrate(url, service)
    return Database(url, name=service)


def message(id: str, alert_id: str, run_id: str) -> Message:
    return Message(
        id=id, what="page", group_id="g", alert_id=alert_id, severity="page", agent="desk", rule="x",
        title=f"planted {id}", run_id=run_id, started_at=NOON,
    )  # fmt: skip


def test_messages_about_an_erased_run_are_not_sent_any_more_and_hold_nothing(tmp_path: Path) -> None:
    database = opened(tmp_path, "pager")
    waits, other = message("m-1", "a-1", ""), message("m-2", "a-2", "r-2")
    database.write_now(lambda conn: [queue.add(conn, one, ["slack"], NOON) for one in (waits, other)])
    counts = database.write_now(lambda conn: pager.erase(conn, PART))
    database.scrub_now(pager.TABLES)
    rows = database.read_now(
        lambda conn: conn.execute(sa.text("SELECT id, phase, due_at IS NULL FROM pager_deliveries ORDER BY id")).all()
    )
    database.close()
    assert counts == {"alerts": 0, "groups": 0, "messages": 1}
    assert [tuple(row) for row in rows] == [("m-1", "withdrawn", 1), ("m-2", "waiting", 0)]
    raw = (tmp_path / "pager.db").read_bytes()
    assert (b"planted m-1" in raw, b"planted m-2" in raw) == (False, True)


def test_a_digest_that_names_an_erased_run_is_not_sent_any_more_and_holds_nothing(tmp_path: Path) -> None:
    database = opened(tmp_path, "pager")
    naming, other = (
        messages.digest(
            DigestWritten(
                agent="_fleet", date=day, title="The shop", words=3, text=f"planted {run_id}", markdown="m", html="h",
                runs=[DigestRun(agent="desk", run_id=run_id)],
            ), NOON,
        )
        for day, run_id in (("2026-11-25", "r-1"), ("2026-11-26", "r-2"))
    )  # fmt: skip
    database.write_now(lambda conn: [queue.add(conn, one, ["mail"], NOON) for one in (naming, other)])
    counts = database.write_now(lambda conn: pager.erase(conn, PART))
    database.scrub_now(pager.TABLES)
    phases = database.read_now(
        lambda conn: conn.execute(sa.text("SELECT phase FROM pager_deliveries ORDER BY id")).scalars().all()
    )
    database.close()
    assert (counts["messages"], phases) == (1, ["withdrawn", "waiting"])
    raw = (tmp_path / "pager.db").read_bytes()
    assert (b"planted r-1" in raw, b"planted r-2" in raw) == (False, True)


def test_a_digest_that_waits_to_be_published_is_not_and_only_its_title_stays(
    tmp_path: Path, js: JetStreamContext
) -> None:
    database = opened(tmp_path, "digest")
    outbox = Outbox(database, "digest", js)

    def keep(conn: Connection, day: str, run_id: str) -> None:
        text = f"A customer wrote planted {run_id}"
        data = DigestWritten(
            agent="desk", date=day, title="x", words=5, text=text, markdown=text, html=text, brief=text,
            runs=[DigestRun(agent="desk", run_id=run_id)],
        )  # fmt: skip
        digests.save(conn, data, NOON)
        id = digests.message_id(day, "desk")
        outbox.add(conn, Outgoing(id, subjects.digest("desk", "written"), msgspec.json.encode(data)))

    database.write_now(lambda conn: (keep(conn, "2026-11-25", "r-1"), keep(conn, "2026-11-26", "r-2")))
    assert database.write_now(lambda conn: digest.erase(conn, PART, outbox)) == {"digests": 1}
    assert database.write_now(lambda conn: digest.erase(conn, PART, outbox)) == {"digests": 0}
    database.scrub_now(digest.TABLES)
    newer, erased = database.read_now(digests.read)
    waits = database.read_now(lambda conn: conn.execute(sa.text("SELECT msg_id FROM digest_outbox")).scalars().all())
    database.close()
    assert newer.data.text == "A customer wrote planted r-2"
    assert erased.data.text == (
        "Desk: Wednesday, 25 November 2026\n\nErased on request: this digest named runs that were erased since.\n"
    )
    assert (erased.data.runs, erased.data.brief in erased.data.html, erased.data.words) == ([], True, 16)
    assert waits == ["digest-desk-2026-11-26"]
    raw = (tmp_path / "digest.db").read_bytes()
    assert (b"planted r-1" in raw, b"planted r-2" in raw) == (False, True)


def test_drift_forgets_the_facts_and_no_finding_shows_the_run(tmp_path: Path) -> None:
    database = opened(tmp_path, "drift")
    known = [facts(run_id, words={"planted" + run_id: "planted" + run_id}) for run_id in ("r-1", "r-2")]
    finding = Finding(
        against="days", label="the 28 days before", cause="words", name="refund", sentence="Customers write more",
        test="t", p=0.0, q=0.0, recent=0.5, baseline=0.1, distance=0.9, psi=0.5, recent_runs=40, baseline_runs=280,
        runs=["r-1", "r-2", "r-gone"], onset="sudden", onset_day="2026-11-21",
    )  # fmt: skip
    verdict = Verdict(
        against="days", label="x", phase="failed", recent_runs=40, baseline_runs=280, least=20, findings=[finding]
    )
    database.write_now(lambda conn: drifts.save_facts(conn, [(one, 5) for one in known]))
    database.write_now(lambda conn: drifts.save_verdicts(conn, "desk", "live", "2026-11-21", [verdict]))

    def shown() -> list[str]:
        (found,) = database.read_now(lambda conn: drifts.read_findings(conn, "desk", "2026-11-21"))
        return list(found["runs"])

    assert shown() == ["r-1", "r-2"], "a run that was forgotten while the day was judged is not shown"
    assert database.write_now(lambda conn: drift.erase(conn, PART)) == {"runs": 1, "findings": 1}
    database.scrub_now(drift.TABLES)
    assert shown() == ["r-2"]
    database.close()
    raw = (tmp_path / "drift.db").read_bytes()
    assert (b"plantedr-1" in raw, b"plantedr-2" in raw) == (False, True)


def test_what_was_erased_in_the_log_is_neither_read_by_drift_nor_quoted_from_a_case_in_a_digest(
    settings: Settings,
) -> None:
    logs = Log(settings)
    logs.add([log_run(run_id, NOON) for run_id in ("r-1", "r-2")])
    logs.database.write_now(lambda conn: erasures.remember(conn, PART.erasure_id, PART.runs))
    logs.database.write_now(lambda conn: erased_log.erase(conn, PART.erasure_id, PART.runs, at=text_of(NOON), by="dpo"))
    runs = [("desk", "r-1"), ("desk", "r-2")]
    ended = logs.database.read_now(lambda conn: reading.ended(conn, "2026-01-01"))
    read = logs.database.read_now(lambda conn: reading.read(conn, ended))
    inputs = logs.database.read_now(lambda conn: daily.read_inputs(conn, runs))
    tools = logs.database.read_now(lambda conn: daily.read_tools(conn, runs))
    erased = logs.database.read_now(lambda conn: daily.read_erased(conn, runs))
    logs.close()
    assert sorted(one.run_id for one in ended) == ["r-1", "r-2"]
    assert [one.run_id for one, _ in read] == ["r-2"]
    assert (set(inputs), set(tools), erased) == ({runs[1]}, {runs[1]}, {runs[0]})
    with Sources(settings, POLICY) as sources:
        cases = tuple(Case(run_id, "desk", run_id, NOON, asked="planted") for _, run_id in runs)
        assert [case.asked for case in sources.told(cases) or ()] == ["", "planted"]
        assert "wrote nothing that is on record" in render.text(sources.digest(NOON.date(), None, NOON)).replace(
            "\n  ", " "
        )


def test_a_review_item_loses_its_ticket_and_what_people_wrote_and_says_that_it_was_erased(tmp_path: Path) -> None:
    database = opened(tmp_path, "reviewer-sampler")
    insert = sa.text(
        "INSERT INTO reviewer_sampler_queue (agent, run_id, track, mode, ticket, rate, draw, day, key_hash, "
        "sampled_at, state) VALUES ('desk', :run, 'live', 'live', 'T-planted', 0.2, 0.1, '2026-11-26', 'k', 1, "
        "'waiting')"
    )
    database.write_now(lambda conn: conn.execute(insert, [{"run": "r-1"}, {"run": "r-2"}]))
    judged = sa.text(
        "INSERT INTO reviewer_sampler_judgements (agent, run_id, track, by, event, claim, verdict, reasons, corrected, "
        "note, judged_at, counts) VALUES ('desk', :run, 'live', 'ann', 'e', 'c', 'fail', '[\"tone\"]', 'planted', "
        "'planted', 1, 1)"
    )
    database.write_now(lambda conn: conn.execute(judged, [{"run": "r-1"}, {"run": "r-2"}]))
    assert database.write_now(lambda conn: sampler.erase(conn, PART)) == {"review items": 1, "judgements": 1}
    query = "SELECT run_id, verdict, reasons, corrected, note FROM reviewer_sampler_judgements ORDER BY 1"
    said = database.read_now(lambda conn: conn.execute(sa.text(query)).all())
    assert [tuple(row) for row in said] == [
        ("r-1", "fail", '["tone"]', "", ""), ("r-2", "fail", '["tone"]', "planted", "planted"),
    ]  # fmt: skip
    rows = database.read_now(
        lambda conn: conn.execute(sa.text("SELECT run_id, ticket, state FROM reviewer_sampler_queue ORDER BY 1")).all()
    )
    database.close()
    assert [tuple(row) for row in rows] == [("r-1", None, "erased"), ("r-2", "T-planted", "waiting")]
