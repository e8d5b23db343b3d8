"""Bring a database to the present schema with Alembic. Imported only when there is need."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from clusterkit.errors import StoreError


def run(engine: sa.Engine, database: Path) -> None:
    """Raises StoreError when a newer clusterkit made the database."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    with engine.connect() as connection:
        if sa.inspect(connection).has_table("alembic_version"):
            found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            known = {
                script.revision for script in ScriptDirectory.from_config(config).walk_revisions()
            }
            if found is not None and found not in known:
                raise StoreError(
                    f"a newer clusterkit made {database} (schema {found}): install that one, "
                    "or set CLUSTERKIT_HOME to another folder"
                )
        config.attributes["connection"] = connection
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            command.upgrade(config, "head")
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            with suppress(sa.exc.DBAPIError):  # a full disk has rolled it back already
                connection.exec_driver_sql("ROLLBACK")
            raise
