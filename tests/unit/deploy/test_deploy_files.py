"""What is shipped for containers: one image, secrets from outside, probes, loopback ports."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from midwatch.contracts import subjects
from midwatch.runtime.nats_server import find_binary

ROOT = Path(__file__).resolve().parents[3]
NATS = ROOT / "deploy" / "nats"
TEMPLATE = NATS / "agent.conf.example"
SERVICES = (
    subjects.LOGGER, subjects.REVIEWER_SAMPLER, subjects.COST_WATCHDOG, subjects.KILL_SWITCH, subjects.PAGER,
    subjects.DRIFT, subjects.DIGEST,
)  # fmt: skip
ROLES = ("ADMIN", "OPERATOR", "SERVICES", "REVIEWER", "HELP_DESK", "DRILL", "AGENT", "POSTGRES")
PASSWORDS = [f"MIDWATCH_{role}_PASSWORD" for role in ROLES]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text())
    return loaded


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_one_container_that_is_asked_whether_it_is_ready(compose: dict[str, Any], name: str) -> None:
    container = compose["services"][name]
    assert container["command"] == ["run", name]
    assert container["image"] == compose["services"]["topology"]["image"]
    assert "/readyz" in container["healthcheck"]["test"][-1]
    assert container["depends_on"]["topology"] == {"condition": "service_completed_successfully"}


def test_the_drills_that_kill_switch_runs_speak_as_their_own_user(compose: dict[str, Any]) -> None:
    environment = compose["services"][subjects.KILL_SWITCH]["environment"]
    assert environment["NATS_URL"].startswith("nats://services:")
    assert environment["MIDWATCH_DRILL_NATS_URL"].startswith("nats://drill:${MIDWATCH_DRILL_PASSWORD:?")


def test_the_pager_reads_its_file_and_cannot_write_it(compose: dict[str, Any]) -> None:
    container = compose["services"][subjects.PAGER]
    assert container["volumes"] == ["./deploy/pager:/etc/midwatch/pager:ro"]
    assert container["environment"]["MIDWATCH_PAGER_FILE"] == "/etc/midwatch/pager/pager.yaml"
    assert container["env_file"] == ["${MIDWATCH_PAGER_ENV:-deploy/pager/pager.env.example}"]
    assert (ROOT / "deploy" / "pager" / "pager.env.example").is_file(), "compose reads it until there is another"
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"deploy/pager/pager.yaml", "deploy/pager/pager.env"} <= set(ignored), "secrets and people are not committed"


def test_no_container_can_gain_rights_or_write_to_its_image(compose: dict[str, Any]) -> None:
    for name in (*SERVICES, "topology"):
        container = compose["services"][name]
        assert (container["cap_drop"], container["read_only"]) == (["ALL"], True)


def test_every_published_port_is_on_loopback_and_its_own(compose: dict[str, Any]) -> None:
    ports = [port for container in compose["services"].values() for port in container.get("ports", ())]
    assert len(ports) == 8
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


def test_no_password_has_a_default() -> None:
    used = re.findall(r"\$\{(\w*PASSWORD)([^}]*)\}", (ROOT / "docker-compose.yml").read_text())
    assert {name for name, _ in used} == set(PASSWORDS)
    assert all(rest.startswith(":?") for _, rest in used)


def test_the_example_environment_names_every_password_and_gives_none() -> None:
    lines = (ROOT / "deploy" / "env.example").read_text().splitlines()
    assert {f"{name}=" for name in PASSWORDS} <= set(lines)


def docker_compose_config(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    binary = shutil.which("docker-compose")
    if not binary:
        pytest.skip("docker-compose is not installed")
    no_file = folder / "empty.env"  # else it would read the .env of whoever runs the tests
    no_file.touch()
    command = [binary, "--env-file", no_file, "config", "-q"]
    path = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run(command, cwd=ROOT, env=path, capture_output=True, text=True)


def test_compose_accepts_the_file_once_the_passwords_are_set(tmp_path: Path) -> None:
    done = docker_compose_config(tmp_path, dict.fromkeys(PASSWORDS, "p1"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("missing", PASSWORDS)
def test_compose_refuses_to_start_without_a_password_and_says_where_to_set_it(missing: str, tmp_path: Path) -> None:
    done = docker_compose_config(tmp_path, {name: "p1" for name in PASSWORDS if name != missing})
    assert done.returncode != 0
    assert "set a password in .env, see deploy/env.example" in done.stderr


def test_the_image_runs_as_nobody_in_particular_and_installs_by_hash() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    assert text.index("USER midwatch") < text.index("ENTRYPOINT")
    assert "--require-hashes -r /tmp/requirements.lock" in text
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["python:3.12-slim"] * 3


def test_everything_that_the_image_copies_is_let_through_to_the_build() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    assert {name for line in copied for name in line.split()} == let_through


def check_configuration(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [find_binary(), "-t", "-c", NATS / "nats.conf"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_the_servers_configuration_is_valid() -> None:
    done = check_configuration(dict.fromkeys(PASSWORDS, "p1"))
    assert done.returncode == 0, done.stderr


def test_the_server_refuses_to_start_without_a_password() -> None:
    done = check_configuration({name: "p1" for name in PASSWORDS if name != "MIDWATCH_AGENT_PASSWORD"})
    assert done.returncode != 0
    assert "MIDWATCH_AGENT_PASSWORD" in done.stderr


def test_the_example_agent_is_made_from_the_template() -> None:
    (command,) = re.findall(r"^#   (sed .+) > agents/refund-desk.conf$", TEMPLATE.read_text(), re.MULTILINE)
    made = subprocess.run(command, shell=True, cwd=NATS, capture_output=True, text=True, check=True).stdout
    assert made == (NATS / "agents" / "refund-desk.conf").read_text()
