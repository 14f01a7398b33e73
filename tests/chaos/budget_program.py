"""An agent that spends on one ticket until it is stopped or killed: `budget_program.py URL HOME BILL`. Each call is on
the provider's bill, a file, before it comes back."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import midwatch

CALL = "0.01"  # US dollars


async def main(url: str, home: str, bill: str) -> None:
    file = os.open(bill, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def model(model: str) -> dict[str, Any]:
        os.write(file, b"1\n")
        await asyncio.sleep(0.01)
        return {"model": model, "usage": {"prompt_tokens": 9, "completion_tokens": 1, "cost": float(CALL)}}

    async with midwatch.connect(url, home=Path(home)) as mw:
        desk = mw.agent("desk", version="1", fallback=lambda handoff: handoff.by)

        async def one() -> None:
            async with desk.run(input="Where is it?", ticket="T-1") as run:
                while True:
                    await run.model(model, model="m", ceiling=CALL)

        await asyncio.gather(*(one() for _ in range(8)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
