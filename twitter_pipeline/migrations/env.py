"""Alembic's entry: runs on the connection it is handed, or on the database of DATABASE_URL."""

import os

from alembic import context
from sqlalchemy import Connection, create_engine

from twitter_pipeline.models import Base
from twitter_pipeline.store.schema import VERSION_TABLE


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    with create_engine(os.environ["DATABASE_URL"]).connect() as opened:
        _run(opened)
