"""Inspect a database before a program writes its tables into it, and make one atomically."""

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from synthdetect.system.errors import UserError
from synthdetect.system.extras import require_extra
from synthdetect.system.files import require_file
from synthdetect.system.redaction import without_secrets


def require_database(
    url: str, option: str, *, program: str, tables: Set[str], instead: str
) -> bool:
    """Check that a database is new or already belongs to a program, without changing it.

    MLflow and Optuna write their tables into any database, even into each other's, and then take
    the other program's schema version for their own.

    Args:
        url: SQLAlchemy URL of the database.
        option: Option or variable that the URL comes from, for messages.
        program: Program that the database must belong to, for messages.
        tables: Names of tables that every database of this program has.
        instead: Sentence on what to give instead, for messages.

    Returns:
        Whether the database already has tables.

    Raises:
        UserError: If the database cannot be opened, is kept in memory, or belongs to another
            program.
    """
    shown = without_secrets(url)
    try:
        database = make_url(with_driver(url))
        if database.drivername == "postgresql+psycopg":
            require_extra("postgresql", f"{option}: {shown}")
        found = _tables(database, option)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{option}: {shown} cannot be opened: {reason.rstrip('.')}. {instead}"
        ) from error
    if found and not tables <= found:
        some = ", ".join(sorted(found)[:5])
        raise UserError(
            f"{option}: {shown} is no database of {program}: it holds {some}. {instead}"
        )
    return bool(found)


@contextmanager
def new_database(url: str, *, parents: bool = False) -> Iterator[str | None]:
    """Make an SQLite database atomically: whole, or not at all.

    Args:
        url: SQLAlchemy URL of the database.
        parents: Whether to make the folders that it is to lie in.

    Yields:
        URL of a temporary file beside the database, in which to make the tables; it takes the
        database's place at the end. `None` if there is nothing to make: the database exists, is
        kept in memory, or is not SQLite's.
    """
    database = make_url(url).database if url.startswith("sqlite:") else None
    if not database or database == ":memory:" or Path(database).exists():
        yield None
        return
    file = Path(database).absolute()
    if parents:
        file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield f"sqlite:///{temporary}"
        with suppress(FileExistsError):  # another process was faster
            os.link(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def with_driver(url: str) -> str:
    """Return the URL of a database with the driver that is installed, if it names none.

    For `postgresql://`, SQLAlchemy 2.0 takes psycopg2; the extra `postgresql` installs psycopg.
    """
    parsed = make_url(url)
    if parsed.drivername == "postgresql" and not find_spec("psycopg2"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed.render_as_string(hide_password=False)


def _tables(url: URL, option: str) -> set[str]:
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise ValueError("a database in memory is lost when the process ends")
        file = Path(url.database)
        require_file(file, option)
        if not file.exists():
            return set()  # connecting would create the file
        if not file.is_file():
            raise ValueError("it is not a file")
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()
