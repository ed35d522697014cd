"""`tweets` in partitions by year and `api_calls` by month; what was stored becomes the first of them."""

from alembic import op

from twitter_pipeline.store.partitions import PATIENCE
from twitter_pipeline.store.schema import sql_file

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the file, once nobody else is at the tables: it takes milliseconds, whatever they hold."""
    connection = op.get_bind().execution_options(no_parameters=True)
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{PATIENCE}'")
    connection.exec_driver_sql("LOCK TABLE tweets, api_calls IN ACCESS EXCLUSIVE MODE")
    connection.exec_driver_sql(sql_file("15_partitions.sql"))


def downgrade() -> None:
    """Refuse: to bring the rows of all partitions into one table again, each would have to be copied."""
    raise NotImplementedError("there is no way back to tables without partitions: restore the backup instead")
