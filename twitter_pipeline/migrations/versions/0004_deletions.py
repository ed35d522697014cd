"""When it was seen that X has deleted a tweet."""

from alembic import op

from twitter_pipeline.store.schema import sql_file

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the file."""
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(sql_file("10_deletions.sql"))


def downgrade() -> None:
    """Take the column away; its index goes with it."""
    op.drop_column("tweets", "deleted_seen_at")
