"""The files of `docs/deploy`, without starting anything."""

import re
import subprocess
from typing import Any

import pytest
import yaml

from synthdetect.commands.catalogue import COMMANDS
from tests.conftest import ROOT
from tests.deploy.compose import DEPLOY, services

SECRETS = (
    "POSTGRES_PASSWORD", "S3_KEY", "S3_SECRET", "ADMIN_PASSWORD", "FLASK_KEY", "WEBHOOK_KEY",
)  # fmt: skip
VALUES = {name: f"<{name}>" for name in SECRETS}


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_has_a_default(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        services({**VALUES, name: ""})


def test_every_secret_of_a_service_comes_from_outside() -> None:
    given = services(VALUES)
    secret = re.compile("PASSWORD|SECRET|KEY")
    for service in given.values():
        for name, value in service.get("environment", {}).items():
            assert not secret.search(name) or value in VALUES.values()


def test_services_listen_on_loopback_unless_told_otherwise() -> None:
    ports = [port for service in services(VALUES).values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    moved = services({**VALUES, "BIND": "192.0.2.1"})
    assert moved["mlflow"]["ports"] == ["192.0.2.1:5000:5000"]


@pytest.mark.parametrize(
    ("dockerfile", "context"), [("Dockerfile", ROOT), ("server.Dockerfile", DEPLOY)]
)
def test_an_image_is_made_of_files_that_exist(dockerfile: str, context: Any) -> None:
    lines = (DEPLOY / dockerfile).read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert copied
    assert all((context / name).exists() for name in copied)
    assert any(line.startswith("USER ") for line in lines), "not root"


def test_the_script_for_slurm_is_bash_and_asks_for_its_addresses() -> None:
    script = str(DEPLOY / "sweep.slurm")
    subprocess.run(["bash", "-n", script], check=True)
    result = subprocess.run(
        ["bash", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "MLFLOW_TRACKING_URI: is the address" in result.stderr


def test_the_job_of_kubernetes_has_what_its_command_reads() -> None:
    job = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())
    template = job["spec"]["template"]["spec"]
    (container,) = template["containers"]
    (script,) = container["args"]
    named = {one["name"] for one in container["env"]} | {"JOB_COMPLETION_INDEX"}
    assert set(re.findall(r"\$([A-Z_]+)", script)) <= named
    command = re.search(r"synthdetect (\w+)", script)
    assert command
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in template["volumes"]}
    assert command[1] in {"sweep", *COMMANDS}
