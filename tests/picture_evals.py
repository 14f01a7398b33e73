"""The eval set of the shop in the pictures: two cases agreed on, one that waits, two versions, a verdict."""

from pathlib import Path

from eval_helpers import midwatch
from picture_runs import REFUNDS

TARGET = Path(__file__).resolve().parents[1] / "examples" / "eval_target.py"
TWICE = """\
case: charged-twice
about: The customer was charged twice and gets one charge back.
conversation:
  - I was charged twice for order A-1001.
expect:
  says: [on their way back]
  writes:
    - {{tool: issue_refund, arguments: {{order_id: A-1001, amount: 19.5}}}}
  hands_off: false
tools: {{lookup_order: read, issue_refund: write}}
recorded:
  - {{tool: lookup_order, arguments: {{order_id: A-1001}}, result: {{order: A-1001, charged_twice: 19.5}}}}
  - {{tool: issue_refund, arguments: {{order_id: A-1001, amount: 19.5}}, result: refunded}}
"""
UNNAMED = """\
case: names-no-order
about: Without an order there is nothing to look up, so a person takes over.
conversation:
  - Where is my money?
expect:
  writes: []
  hands_off: true
"""
FRIDAY = """\
case: promises-no-day
about: Nobody knows when a bank pays, so no day is promised.
conversation:
  - I was charged twice for order A-1001. Will it be there by Friday?
expect:
  says_not: [Friday]
"""


def eval_set(folder: Path) -> None:
    """Writes it, has people agree, and replays two versions; the gate's verdict is published."""
    own = folder / REFUNDS
    own.mkdir(parents=True)
    for name, text in (("charged-twice", TWICE.format()), ("names-no-order", UNNAMED), ("promises-no-day", FRIDAY)):
        (own / f"{name}.yaml").write_text(text, encoding="utf-8")
    where = ("--evals", str(folder))
    for by in ("ana", "ben"):
        midwatch("agree", "charged-twice", "names-no-order", "--by", by, "--yes", *where)
    midwatch("agree", "promises-no-day", "--by", "ana", "--yes", *where)
    for version in ("2026-11-06", "2026-11-20"):
        midwatch("run", REFUNDS, "--target", f"{TARGET}:answer", "--version", version, *where)
    midwatch("baseline", REFUNDS, "2026-11-06", *where)
    midwatch("gate", REFUNDS, "--by", "ana", *where)
