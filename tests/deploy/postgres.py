"""A PostgreSQL server of Debian's package `postgresql`, in a temporary folder."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql


@dataclass(frozen=True)
class Postgres:
    """A server that listens on a Unix socket, and on an address if it has one.

    Attributes:
        folder: Its folder, which is that of the socket too.
        port: Its port, which is part of the socket's name too.
        user: The superuser.
        password: Its password, which every connection must give.
    """

    folder: Path
    port: int
    user: str
    password: str

    def execute(self, statement: sql.Composable | str, database: str = "postgres") -> list[tuple]:  # type: ignore[type-arg]
        """Execute a statement, and return its rows."""
        with psycopg.connect(
            host=str(self.folder), port=self.port, user=self.user, password=self.password,
            dbname=database, autocommit=True,
        ) as connection:  # fmt: skip
            found = connection.execute(statement)  # type: ignore[arg-type]
            return found.fetchall() if found.description else []

    def create(self, *databases: str) -> None:
        """Create empty databases."""
        for name in databases:
            self.execute(sql.SQL("create database {}").format(sql.Identifier(name)))

    def local(self, database: str) -> str:
        """URL of a database by the Unix socket, without the password."""
        return f"postgresql+psycopg://{self.user}@/{database}?host={self.folder}&port={self.port}"


def program(name: str) -> str:
    """Path of one of PostgreSQL's programs, which Debian keeps out of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    path = str(found[-1]) if found else shutil.which(name)
    assert path, "these tests need PostgreSQL: apt-get install postgresql"
    return path


@contextmanager
def postgres(
    *, user: str, password: str, address: str = "", port: int = 5432, enter: tuple[str, ...] = ()
) -> Iterator[Postgres]:
    """Run a server, as another user if this one is root, which PostgreSQL refuses.

    Args:
        user: Name of the superuser.
        password: Its password.
        address: Address to listen on; none by default.
        port: Port to listen on.
        enter: Words before the command, which start it on another host.
    """
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
    owner: dict[str, int] = {}
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        owner = {"user": entry.pw_uid, "group": entry.pw_gid}
        shutil.chown(folder, entry.pw_uid, entry.pw_gid)
    secret = folder / "password"
    secret.write_text(password)
    secret.chmod(0o644)
    log = (folder.parent / f"{folder.name}.log").open("w+b")
    try:
        subprocess.run(
            [program("initdb"), "--pgdata", f"{folder}/data", "--username", user, "--auth",
             "scram-sha-256", "--pwfile", str(secret), "--encoding", "UTF8", "--no-sync"],
            check=True, stdout=log, stderr=log, cwd="/", **owner,
        )  # fmt: skip
        as_owner = ["setpriv", "--pdeathsig=INT"]
        if owner:
            as_owner += [f"--reuid={owner['user']}", f"--regid={owner['group']}", "--clear-groups"]
        process = subprocess.Popen(
            [*enter, *as_owner, program("postgres"), "-D", f"{folder}/data", "-p", str(port),
             "-c", f"listen_addresses={address}", "-c", f"unix_socket_directories={folder}",
             "-c", "fsync=off", "-c", "max_connections=200"],
            stdout=log, stderr=log, cwd="/", start_new_session=True,
        )  # fmt: skip
        if address:
            with (folder / "data" / "pg_hba.conf").open("a") as access:
                access.write("host all all samenet scram-sha-256\n")
        server = Postgres(folder, port, user, password)
        try:
            _wait(server, process, Path(log.name))
            server.execute("select pg_reload_conf()")
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown
            process.wait(timeout=60)
    finally:
        log.close()
        Path(log.name).unlink()
        shutil.rmtree(folder)


def _wait(server: Postgres, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()
        try:
            server.execute("select 1")
            return
        except psycopg.OperationalError:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
