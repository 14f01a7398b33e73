"""Runs every benchmark and prints its figures, each beside its target and its limit or peer of the same run.

`python benchmarks/run.py [--quick] [--json] [--write FILE] [NAME …]`; a NAME is a module without `bench_`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = (
    *("sdk", "switch", "kill", "logger", "keep", "watchdog", "budget", "rules", "drift", "prices", "redaction"),
    *("readers", "review_year", "digest", "evals", "together", "log_size", "console_live", "console"),
)
MARK = "<!-- figures: written by benchmarks/run.py -->"


def measure(name: str, quick: bool) -> list[dict[str, Any]]:
    """The rows of one benchmark, which runs in a process of its own."""
    environment = {**os.environ, "MIDWATCH_BENCH_QUICK": "1"} if quick else dict(os.environ)
    done = subprocess.run(
        [sys.executable, HERE / f"bench_{name}.py", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"bench_{name}.py ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return [json.loads(line) | {"bench": name} for line in done.stdout.splitlines() if line.startswith("{")]


def text(value: Any) -> str:
    """A figure as a person reads it."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value if value is not None else "")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | figure | target | beside it, in the same run | ratio |", "|---|---|---|---|---|"]
    for row in rows:
        peer = f"{row['peer']}: {text(row.get('peer_value'))}" if row.get("peer") else ""
        figure = f"{text(row['value'])} {row['unit']}"
        lines.append(f"| {row['name']} | {figure} | {text(row.get('target'))} | {peer} | {text(row.get('ratio'))} |")
    return "\n".join(lines)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Puts the table below the mark in the document; what a person wrote above it stays."""
    head = path.read_text(encoding="utf-8").split(MARK)[0]
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    when = f"{datetime.now(UTC):%Y-%m-%d}"
    path.write_text(f"{head}{MARK}\n\nMeasured on {when}: {machine}.\n\n{table(rows)}\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones; all of them: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that every benchmark works")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this document")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.names or NAMES:
        sys.stderr.write(f"measuring {name} …\n")
        found = measure(name, options.quick)
        rows += found
        sys.stdout.write(("\n".join(json.dumps(row) for row in found) if options.json else table(found) + "\n") + "\n")
        sys.stdout.flush()
    if options.write:
        write(options.write, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
