"""An agent that keeps runs in flight and notes on disk what it does, line by line, so that a kill loses no line.

    pod_program.py URL HOME INSTANCE AGENT RUNS LOG own|none [rogue] [dies=N]

Each run calls a reading tool until it is stopped; then, once the switch lets it, another begins. `rogue`: beside them
one run that obeys no switch. `dies`: it kills itself as the Nth of its runs has been answered or left.
"""

import asyncio
import os
import signal
import sys
import time

import midwatch

EACH = 0.02  # seconds that one call takes
ANSWER = 0.01  # seconds that the fallback takes, times the run's place, so that a kill finds each somewhere else


async def main(
    url: str, home: str, instance: str, agent: str, runs: int, log: str, own: bool, rogue: bool, dies: int
) -> None:
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    over = 0

    def note(kind: str, run_id: str, detail: str = "") -> None:
        nonlocal over
        os.write(out, f"{time.monotonic():.6f} {kind} {run_id} {detail}\n".encode())
        over += kind in ("answered", "left")
        if over == dies:
            os.kill(os.getpid(), signal.SIGKILL)

    async def to_person(handoff: midwatch.Handoff) -> str:
        note("fallback", handoff.run_id, handoff.key)
        await asyncio.sleep(ANSWER * int(handoff.run_id.split("-")[-2]))
        note("answered", handoff.run_id, handoff.key)
        return "A person will answer you."

    async def look_up(run_id: str, kind: str = "call") -> None:
        note(kind, run_id)
        await asyncio.sleep(EACH)

    async with midwatch.connect(url, home=home, instance=instance) as mw:
        desk = mw.agent(agent, version="1", fallback=to_person if own else None)

        async def serve(place: int) -> None:
            number = 0
            while True:
                while desk.run(input="May I?").halted:
                    await asyncio.sleep(0.02)
                number += 1
                name = f"{instance}-{place}-{number}"
                try:
                    async with desk.run(input="Where is my refund?", ticket=name, run_id=name) as run:
                        note("began", name)
                        while True:
                            await run.tool("look_up", look_up, name)
                except midwatch.Halted as halted:
                    note("left", name, halted.key)

        async def obey_nothing() -> None:
            async with desk.run(input="x", run_id=f"{instance}-rogue", obey=False) as run:
                while True:
                    await run.tool("look_up", look_up, run.run_id, "rogue")
                    await asyncio.sleep(0.2)

        await asyncio.gather(*(serve(place) for place in range(runs)), *([obey_nothing()] if rogue else []))


if __name__ == "__main__":
    url, home, instance, agent, runs, log, *more = sys.argv[1:]
    dies = int(next((word[5:] for word in more if word.startswith("dies=")), -1))
    asyncio.run(main(url, home, instance, agent, int(runs), log, "own" in more, "rogue" in more, dies))
