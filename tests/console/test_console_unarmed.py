"""A process that may not obey the next halt: what its alert and the page Stop say of it, and what to do."""

import re

from nats.js import JetStreamContext

from console_helpers import Person, Running
from helpers import eventually
from kill_switch_helpers import Pod, put
from logged import alert
from midwatch.contracts import codec, subjects
from midwatch.contracts.envelope import utc_now
from midwatch_services.console.access.roles import Role

EVIDENCE = "midwatch switch; pod-2: process 7 on h, has applied agent.desk at epoch 2, which stands at 3"


async def test_its_alert_and_the_page_stop_say_in_words_what_to_do(running: Running, js: JetStreamContext) -> None:
    await put(js, "agent.desk", b'{"state":"running"}')
    await Pod(js, "pod-2", lease=30).say({"fleet": 1, "agent.desk": 1})
    event = alert(
        "raised", rule="not_armed", title="1 of 1 instance of desk is not armed", run_id=None, value=1,
        evidence=EVIDENCE, action_taken="none", at=utc_now(),
    )  # fmt: skip
    await js.publish(subjects.alert("desk", "raised"), codec.encode(event))
    async with running.person(Role.VIEWER) as vera:
        pages = [(await vera.get(where)).text for where in ("/stop", "/stop/state", "/alerts/a-1")]
        for page in pages:
            assert "has not yet obeyed the last change of the switch" in page
            assert "End this process: 7 on h." in page
            assert "<code>midwatch switch write-off pod-2 --agent desk --reason &#34;…&#34;</code>" in page
        assert "epoch" not in pages[0] + pages[1]
        assert re.search(r"Figure</dt><dd>.*1.* process</dd>", pages[2])
        assert '<code class="said">midwatch switch</code><br><bdi class="said">pod-2: process 7 on h' in pages[2]
        await Pod(js, "pod-2").say(leaving=True)
        page = await eventually(lambda: _calm(vera))
        assert "No process of it can be named" in page


async def _calm(person: Person) -> str:
    page = (await person.get("/alerts/a-1")).text
    assert "write-off" not in page
    return page
