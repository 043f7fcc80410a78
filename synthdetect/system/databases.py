"""Looking into a database before a program that fills it with its tables is let near it."""

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
    """See, changing nothing, that a database is new or already a program's.

    MLflow and Optuna write their tables into whatever database they are given, into each other's
    too, and then take one's version of the schema for their own.

    Args:
        url: of the database.
        option: which gave it, for messages.
        program: whose database it must be.
        tables: some that the program's databases have.
        instead: what to give, for messages.

    Returns:
        Whether it has tables already.

    Raises:
        UserError: it is none, cannot be reached, is lost when the process ends, or is another's.
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
            raise ValueError("it would be kept in memory, and lost at the end")
        file = Path(url.database)
        require_file(file, option)
        if not file.exists():
            return set()  # to look would be to make it
        if not file.is_file():
            raise ValueError("it is no file")
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()
