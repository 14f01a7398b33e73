"""A reviewer in a process of its own: `reviewer_program.py URL NAME [N]`. Takes one run after the other and passes it,
each printed as a line, until nothing waits. With N it does nothing with the Nth and holds it."""

import asyncio
import sys

import nats

from midwatch.contracts.reviews import ReviewJudged
from midwatch_services.reviewer_sampler.judging.desk import Desk


async def main(url: str, name: str, hold: int) -> None:
    nc = await nats.connect(url)
    desk, count = Desk(nc, name), 0
    while (held := await desk.take()).run_id:
        count += 1
        if count == hold:
            print(f"holds {held.run_id}", flush=True)
            await asyncio.Event().wait()
        data = ReviewJudged(
            run_id=held.run_id, agent=held.agent, verdict="pass", by=name, claim=held.claim, seconds=1.0
        )
        await desk.judge(data)
        print(f"judged {held.run_id}", flush=True)
    await nc.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0))
