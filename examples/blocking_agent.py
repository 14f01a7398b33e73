# ruff: noqa: T201
"""The same agent without asyncio: each thread takes tickets from a queue. Run it like ten_line_agent.py."""

import queue
import threading
from typing import Any

import midwatch

TICKETS = [("T-2001", "A-1001"), ("T-2002", "A-1002"), ("T-2003", "A-1003"), ("T-2004", "A-1004")]


def main() -> None:
    waiting: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    for ticket in TICKETS:
        waiting.put(ticket)
    with midwatch.blocking.connect() as mw:
        desk = mw.agent("refund-desk", version="example-1", fallback=lambda handoff: "A person will answer you.")
        answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threads = [threading.Thread(target=work, args=(desk, waiting, answers)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    while not answers.empty():
        print(answers.get())


def work(
    desk: "midwatch.blocking.Agent", waiting: "queue.SimpleQueue[tuple[str, str]]", answers: "queue.SimpleQueue[str]"
) -> None:
    while True:
        try:
            ticket, order = waiting.get_nowait()
        except queue.Empty:
            return
        with desk.run(ticket=ticket, input=f"Where is my order {order}?") as run:
            run.model(complete, model="gpt-4.1", messages=[])
            found = run.tool("lookup_order", lookup_order, order_id=order)
            run.finish(f"Your order is {found['status']}.")
        answers.put(f"{ticket}: {run.result or found['status']}")


def complete(*, model: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Stands for a model client."""
    message = {"role": "assistant", "content": "I look up the order."}
    usage = {"prompt_tokens": 900, "completion_tokens": 40}
    return {"model": model, "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


def lookup_order(order_id: str) -> dict[str, str]:
    return {"order": order_id, "status": "on its way"}


if __name__ == "__main__":
    main()
