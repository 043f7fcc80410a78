"""Inspect a database before a program writes its tables into it."""

from collections.abc import Set
from pathlib import Path

from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from synthdetect.system.errors import UserError
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
        found = _tables(make_url(url), option)
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
