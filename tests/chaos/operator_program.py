"""An operator with a quick hand: halts and resumes one agent by the command line, over and over.

    operator_program.py NAME AGENT ROUNDS

Begins at a line on its input. Prints a line of JSON for each command: what was asked, how it ended, what it answered.
"""

import json
import sys

from typer.testing import CliRunner

from midwatch_services.cli import app


def main(name: str, agent: str, rounds: int) -> None:
    sys.stdin.readline()
    for number in range(rounds):
        for verb in ("halt", "resume"):
            reason = f"{verb} {number} of {name}"
            ended = CliRunner().invoke(app, [verb, agent, "--reason", reason, "--by", name, "--json"])
            told = json.loads(ended.stdout) if ended.exit_code == 0 else ended.output
            print(json.dumps({"verb": verb, "reason": reason, "code": ended.exit_code, "told": told}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
