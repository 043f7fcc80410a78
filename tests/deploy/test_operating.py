"""The commands of `docs/team.md` for operating a team's servers, as they stand there.

`docker` is a script here that executes what a service's container would on the service's host. The
objects of the store are in its memory, so that nothing is there to be packed.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from tests.conftest import ROOT
from tests.deploy.compose import services
from tests.deploy.conftest import SECRETS, Team, account_of
from tests.deploy.postgres import program

pytestmark = pytest.mark.long

_DOCKER = """#!{python}
import json, os, sys

kind, *words = sys.argv[2:]  # after "docker compose"
if kind in ("stop", "build", "up"):
    sys.exit(0)
environment = {{}}
while words[0].startswith("-"):
    if words.pop(0) == "-e":
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
service, *command = words
enter, own = json.load(open({hosts!r}))[service]
os.execvpe(enter[0], [*enter, *command], {{**own, **environment}})
"""


@pytest.fixture
def said() -> list[str]:
    """The paragraphs of the page's block of commands."""
    page = (ROOT / "docs" / "team.md").read_text()
    block = re.search(r"## Operating it\n\n```sh\n(.*?)```", page, re.S)
    assert block
    return block[1].split("\n\n")


def test_backup_restoring_garbage_collection_and_upgrade(
    team: Team, said: list[str], tmp_path: Path
) -> None:
    parts = services(SECRETS)
    path = ":".join([*(str(Path(p).parent) for p in (sys.executable, program("pg_dump"))),
                     os.environ["PATH"]])  # fmt: skip
    server = {**parts["mlflow"]["environment"], "PATH": path, "HOME": str(tmp_path)}
    database = {"PATH": path, "PGHOST": str(team.postgres.folder),
                "PGPORT": str(team.postgres.port),
                "PGPASSWORD": team.postgres.password}  # fmt: skip
    hosts = {
        "postgres": [["env"], database],
        "store": [["true"], {"PATH": path}],
        "mlflow": [[*team.server.enter(folder=tmp_path)], server],
    }
    (tmp_path / "hosts.json").write_text(json.dumps(hosts))
    docker = tmp_path / "docker"
    docker.write_text(_DOCKER.format(python=sys.executable, hosts=str(tmp_path / "hosts.json")))
    docker.chmod(0o755)

    def say(text: str) -> None:
        shell = ["bash", "-euo", "pipefail", "-c", text]
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(
            shell, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr

    client = team.client()
    experiment = client.create_experiment("rosa's, which she may delete from")
    kept, old, recent = (_run(experiment, name) for name in ("kept", "old", "recent"))
    for run_id in (old, recent):
        client.delete_run(run_id)
    month = 31 * 24 * 3600 * 1000
    team.postgres.execute(
        f"update runs set deleted_time = deleted_time - {month} where run_uuid = '{old}'", "mlflow"
    )

    backup, restoring, collection, upgrade = said
    say(backup)
    assert all((tmp_path / f"{name}.dump").stat().st_size for name in ("mlflow", "auth", "optuna"))
    team.postgres.execute("create database restored")
    assert "--dbname mlflow " in restoring
    say(restoring.replace("--dbname mlflow ", "--dbname restored "))
    rows = team.postgres.execute("select run_uuid from runs", "restored")
    assert {kept, old, recent} <= {row[0] for row in rows}

    _, password = account_of(parts["mlflow"]["environment"])
    say(collection.replace("PASSWORD=...", f"PASSWORD={password}"))
    rows = team.postgres.execute("select run_uuid from runs", "mlflow")
    assert {kept, old, recent} & {row[0] for row in rows} == {kept, recent}
    keys = team.keys()
    assert [any(run_id in key for key in keys) for run_id in (kept, old, recent)] == [
        True, False, True
    ]  # fmt: skip

    say(upgrade)
    assert client.get_run(kept).info.status == "FINISHED"


def _run(experiment: str, name: str) -> str:
    with mlflow.start_run(experiment_id=experiment, run_name=name) as run:
        mlflow.log_text(name, "note.txt")
    return str(run.info.run_id)
