"""What redaction costs an event by the default rules, beside plain `re` of the same rules and beside doing nothing; and
what it misses and hits wrongly in 653 published runs, judged by other means.

`python benchmarks/bench_redaction.py [--json] [--data FOLDER] [--show]`. Of each kind all that could be meant is taken
from the texts and labelled: mail addresses by the standard library's parser, telephone numbers by the fields that hold
them and by hand for the rest, card numbers and IBANs by their check digits and by hand. `--show` lists every
disagreement.
"""

import argparse
import gzip
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from email.utils import parseaddr
from pathlib import Path
from typing import Any

from load import QUICK, events
from real_events import run_events

from midwatch_services.logger.redaction import kinds, letters
from midwatch_services.logger.redaction.redactor import Redactor
from midwatch_services.logger.redaction.rules import compiled

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
# Plain `re`, as one would write it first: one search for each rule over the whole body.
PLAIN = (
    re.compile(r"[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+"),
    re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)"),
    re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]){11,30}\b"),
    re.compile(r"(?<!\w)(?:\+?\d{1,3}[ .-]?)?(?:\(\d{2,4}\)[ ]?|\d{2,4}[ .-])\d{3,4}[ .-]?\d{3,4}(?!\w)"),
)
# What people read in these texts as a telephone number: by hand, of all that has seven digits or more.
BY_HAND = {"844-872-8351"}  # behind letters: 1-844-TRAVEL1 (1-844-872-8351)
DIALLED = re.compile(r"^\(?(?:1-)?\d{3}\)?-\d{3}-\d{4}$")
LOOSE = re.compile(r"[+(]?\d[\d ().\-]{5,}\d")


def micros(work: Callable[[bytes], object], bodies: Sequence[bytes]) -> float:
    """The best of five, of processor time: other programs on the machine do not count."""
    best = float("inf")
    for _ in range(2 if QUICK else 5):
        begin = time.thread_time()
        for body in bodies:
            work(body)
        best = min(best, time.thread_time() - begin)
    return best / len(bodies) * 1e6


def plain(body: bytes) -> int:
    """How many matches `re` finds; nothing is replaced yet."""
    text = body.decode()
    return sum(1 for pattern in PLAIN for _ in pattern.finditer(text))


def speed(name: str, bodies: Sequence[bytes], target: str) -> list[dict[str, Any]]:
    redactor = Redactor(compiled(), "bench-desk")
    size = sum(map(len, bodies)) / len(bodies)
    few = bodies[:: max(1, len(bodies) // 500)]  # of the slow way
    took, by_re, nothing = micros(redactor.body, bodies), micros(plain, few), micros(len, bodies)
    hit = sum(redactor.body(body) != body for body in bodies) / len(bodies)
    name = f"redacting {name}, {size:,.0f} bytes on average, {100 * hit:.1f} % of them changed"
    row = {"name": name, "value": took, "unit": "µs an event", "target": target}
    return [
        {**row, "peer": "finding alone with plain `re`, µs", "peer_value": by_re, "ratio": took / by_re},
        {**row, "target": "", "peer": "a loop that does nothing, µs", "peer_value": nothing, "ratio": None},
    ]


def texts(folder: Path) -> Iterator[str]:
    """Every text of the runs: what was said, what tools were given, what they answered."""
    with gzip.open(folder / "agent-runs" / "runs.jsonl.gz") as lines:
        for line in lines:
            for message in json.loads(line)["messages"]:
                content = message.get("content")
                if content:
                    yield content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
                for call in message.get("tool_calls") or ():
                    yield json.dumps(call["args"], ensure_ascii=False)
    for path in sorted((folder / "otlp").glob("*.json")):
        yield from _strings(json.loads(path.read_text(encoding="utf-8")))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
    elif isinstance(value, str):
        yield value


def mails(text: str) -> set[str]:
    """Addresses by the standard library's parser, word by word."""
    words = re.split(r'[\s"<>(),;:*`\\|\[\]{}]+|(?<=\.)\\n', text)
    found = {parseaddr(word.strip(".'!?/"))[1] for word in words if "@" in word}
    return {one for one in found if re.fullmatch(r"[^@]+@[^@]+\.[^@.]+", one)}


def phones(text: str) -> set[str]:
    """Numbers with the form of those in the fields `phone_number`, and those that were labelled by hand."""
    plain_text = letters.plain(text)
    found = {one for one in map(str.strip, LOOSE.findall(plain_text)) if DIALLED.match(one.strip("()"))}
    return found | {one for one in BY_HAND if one in plain_text}


def cards(text: str) -> set[str]:
    """Runs of 13 to 19 digits that Luhn's rule passes, alone or in groups of four, and no fraction of a number."""
    found = re.findall(r"(?<![\d.-])(?:\d{13,19}|\d{4}(?:[ -]\d{4}){2,3}[ -]\d{1,4})(?![\d-])", letters.plain(text))
    return {one for one in found if _luhn(one) and one.strip()[0] in "3456"}


def _luhn(number: str) -> bool:
    digits = [int(sign) for sign in number if sign.isdigit()][::-1]
    return sum(sum(divmod(digit * (1 + place % 2), 10)) for place, digit in enumerate(digits)) % 10 == 0


def ibans(text: str) -> set[str]:
    """What begins like an IBAN and has 15 signs or more, its check digits right."""
    found = re.findall(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", letters.plain(text))
    return {one for one in found if _mod97("".join(one.split())) == 1}


def _mod97(iban: str) -> int:
    return int("".join(str(int(sign, 36)) for sign in iban[4:] + iban[:4])) % 97


REFERENCE = {"email": mails, "phone": phones, "card": cards, "iban": ibans}
# What must never be hit: references by which a run is found again.
REFERENCES = re.compile(r'#W\d{7}|"(?:order_id|reservation_id|user_id|item_id|product_id|payment_id)": "([^"]+)"')


def judge(folder: Path, *, show: bool) -> list[dict[str, Any]]:
    """Precision and recall of each kind, counted by different strings in each text."""
    counts = {kind: [0, 0, 0] for kind in REFERENCE}  # right, missed, wrong
    seen: set[str] = set()
    references = damaged = 0
    redactor = Redactor(compiled(), "bench-desk")
    for place, text in enumerate(texts(folder)):
        if QUICK and place > 4_000:
            break
        plain_text = letters.plain(text)
        for kind, reference in REFERENCE.items():
            wanted = {_bare(one) for one in reference(text)}
            found = {_bare(plain_text[begin:end]) for begin, end in kinds.FINDERS[kind](plain_text)}
            counts[kind][0] += len(wanted & found)
            counts[kind][1] += len(wanted - found)
            counts[kind][2] += len(found - wanted)
            for what, which in (("missed", wanted - found), ("wrong", found - wanted)):
                for one in which if show else ():
                    if f"{what} {kind} {one}" not in seen:
                        seen.add(f"{what} {kind} {one}")
                        sys.stderr.write(f"{what} {kind}: {one!r} in {text[max(0, text.find(one) - 40) :][:90]!r}\n")
        held = [found[0] for found in REFERENCES.finditer(text)]
        left = redactor.text(text) if held else text
        references += len(held)
        damaged += sum(one not in left and one.replace(": ", ":") not in left for one in held)
    rows = []
    for kind, (right, missed, wrong) in counts.items():
        told = f"{right:,} found, {missed:,} missed, {wrong:,} wrong"
        recall = 100 * right / (right + missed) if right + missed else None
        precision = 100 * right / (right + wrong) if right + wrong else None
        rows.append({
            "name": f"{kind} in the published runs: {told}", "value": "none there" if recall is None else recall,
            "unit": "" if recall is None else "% recall", "peer": "precision, %", "peer_value": precision,
        })  # fmt: skip
    rows.append({
        "name": f"ids of orders, reservations, users and items, {references:,} of them, that were hit",
        "value": damaged, "unit": "ids", "target": "0",
    })  # fmt: skip
    return rows


def _bare(text: str) -> str:
    return text.strip(" ().'!").removeprefix("1-") if not text.startswith("+") else text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--data", type=Path, default=DATA, metavar="FOLDER", help="the published runs")
    parser.add_argument("--show", action="store_true", help="list what was missed or hit wrongly")
    options = parser.parse_args()
    rows = speed("the events of the logger's benchmark", [one.body for one in events(500 if QUICK else 4_000)], "< 30")
    if options.data.is_dir():
        real = [one.body for one in run_events(options.data, 20 if QUICK else None)]
        rows += speed("the events of the published runs", real, "< 30")
        rows += judge(options.data, show=options.show)
    else:
        sys.stderr.write(f"the published runs are not in {options.data}: nothing of them is judged\n")
    for row in rows:
        print(json.dumps(row) if options.json else row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
