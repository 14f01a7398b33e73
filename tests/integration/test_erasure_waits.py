"""When a service has done with what a stream holds: until then an erasure waits for it."""

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from logged import publish
from midwatch.contracts import subjects
from midwatch.errors import Temporary
from midwatch.runtime.erasure import is_past


async def past(js: JetStreamContext, upto: int) -> bool:
    return await is_past(js, subjects.RUNS, "t", upto)


@pytest.fixture
async def js(js: JetStreamContext) -> JetStreamContext:
    """With a consumer `t` that hears what was said and what was handed off, by whichever agent."""
    wanted = ["midwatch.run.*.said", "midwatch.run.*.handed_off"]
    config = ConsumerConfig(durable_name="t", ack_policy=AckPolicy.EXPLICIT, filter_subjects=wanted)
    await js.add_consumer(subjects.RUNS, config)
    return js


async def test_what_it_does_not_hear_is_past(js: JetStreamContext) -> None:
    await publish(js, "model_called", model="m")
    assert await past(js, 1)


async def test_what_came_a_moment_ago_is_not_past(js: JetStreamContext) -> None:
    for upto in range(1, 201):  # the server counts it as pending a moment later
        await publish(js, "said", seq=upto, by="agent", text="x")
        assert not await past(js, upto)


async def test_what_is_handed_over_is_past_once_it_is_acknowledged(js: JetStreamContext) -> None:
    await publish(js, "said", by="agent", text="x")
    await publish(js, "said", seq=1, by="agent", text="x")
    first, second = await (await js.pull_subscribe_bind("t", subjects.RUNS)).fetch(2)
    await second.ack_sync()
    assert not await past(js, 2)
    await first.ack_sync()
    assert await past(js, 2)


async def test_what_comes_later_is_not_waited_for(js: JetStreamContext) -> None:
    await publish(js, "model_called", model="m")
    await publish(js, "said", seq=1, by="agent", text="x")
    assert await past(js, 1)


async def test_what_the_stream_no_longer_holds_is_past(js: JetStreamContext) -> None:
    await publish(js, "said", by="agent", text="x")
    await js.delete_msg(subjects.RUNS, 1)
    assert await past(js, 1)


async def test_where_the_server_does_not_say_the_erasure_is_tried_again(js: JetStreamContext, nc: Client) -> None:
    await nc.close()
    with pytest.raises(Temporary, match="the server does not say how far t is"):
        await past(js, 1)
