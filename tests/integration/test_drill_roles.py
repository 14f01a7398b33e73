"""Drills under the roles that we ship: none of the three needs more than it may."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import midwatch
import shipped_server
from drill_helpers import LONG_AGO, apply_card, drilled, is_armed
from helpers import eventually
from kill_switch_helpers import kill_switch
from midwatch.runtime import topology
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.kill_switch.drills import drill, drill_check
from midwatch_services.kill_switch.drills.drill_plan import SHAPE
from midwatch_services.kill_switch.policy import POLICY
from shipped_server import AGENT, Connect

server, connect = shipped_server.server, shipped_server.connect  # fixtures of this file

DRILLING = replace(
    POLICY, drill=replace(SHAPE, before=0.3, hold=0.3, after=0.1), drill_look=timedelta(seconds=0.1)
)  # fmt: skip


@pytest.mark.parametrize("scheduled", [False, True])
async def test_a_drill_needs_no_more_than_its_three_roles_may(
    connect: Connect, server: str, tmp_path: Path, scheduled: bool
) -> None:
    async with connect("admin") as admin:
        await topology.apply(admin.nc.jetstream(), Settings())
        every = "weekly" if scheduled else "never"
        await apply_card(admin.nc.jetstream(), agent=AGENT, applied_at=LONG_AGO, drill=every, drill_hours="00:00-00:00")
        await Switchboard(admin.nc.jetstream()).resume_agent(AGENT, reason="test", by="admin")
    drill_url = f"nats://drill:pw-drill@{server}"
    services_url, operator_url = f"nats://services:pw-services@{server}", f"nats://operator:pw-operator@{server}"
    settings = Settings(home=tmp_path / "home", nats_url=services_url, http_port=0, drill_nats_url=drill_url)
    pod = midwatch.connect(f"nats://{AGENT}:pw-agent@{server}", home=tmp_path / "pod", instance="pod-1")
    async with pod as mw, drill.lasting_connection(operator_url) as nc, kill_switch(settings, DRILLING):
        js = nc.jetstream()
        mw.agent(AGENT, version="1")
        if not scheduled:
            await eventually(lambda: is_armed(nc, js))
            ready = await drill_check.check(nc, js, AGENT, without_instances=False)
            order = drill.Order(ready, "ann", drill_url, "drill-1", shape=DRILLING.drill)
            await drill.Drill(nc, js, order, lambda _: None).perform()
        (result,) = await eventually(lambda: drilled(js), within=20)
    assert result.passed, result.failures
    assert result.scheduled is scheduled
