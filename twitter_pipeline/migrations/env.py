"""Alembic's entry: runs on the connection it is handed, or on the database of DATABASE_URL."""

import os

from alembic import context
from sqlalchemy import Connection, create_engine, text

from twitter_pipeline.models import Base
from twitter_pipeline.store.schema import VERSION_TABLE

PARTITIONS = "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'"


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        compare_server_default=True,
        # A partition is no table of the models: it has what the whole has.
        include_name=lambda name, kind, _: kind != "table" or name not in connection.scalars(text(PARTITIONS)).all(),
    )
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    with create_engine(os.environ["DATABASE_URL"]).connect() as opened:
        _run(opened)
