"""Numbered migrations, shipped inside the package: applied when a server starts, on PostgreSQL by a command."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from fedit_protocol.errors import StorageError

__all__ = ["found_revision", "is_current", "newest_revision", "refuse_newer", "upgrade"]


def upgrade(connection: Connection) -> None:
    """Bring the database to the newest version in one transaction; one that is there already is not touched."""
    if not is_current(connection):
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    connection.commit()


def is_current(connection: Connection) -> bool:
    """Say whether the database is at the version that this program was written for."""
    return found_revision(connection) == newest_revision()


def found_revision(connection: Connection) -> str | None:
    """Return the database's version, None before the first one."""
    return MigrationContext.configure(connection).get_current_revision()


@cache  # reading every migration takes longer than all else that a readiness check does
def newest_revision() -> str:
    """Return the version that this program was written for."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def refuse_newer(found: str | None, where: str) -> None:
    """Raise StorageError S003 if the database's version is of a newer program than this one."""
    if found in {None, newest_revision()}:
        return
    if found not in {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}:
        raise StorageError(
            f"a newer fedit-server made this database: it is at schema {found}, this version knows {newest_revision()}",
            code="S003",
            where=where,
            fix="uv tool upgrade fedit",
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
