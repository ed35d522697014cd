"""What runs are fetching at this moment, so that a second run on an account waits instead of asking twice."""

from alembic import op

from twitter_pipeline.store.schema import sql_file

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the file."""
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(sql_file("08_walks.sql"))


def downgrade() -> None:
    """Take the table away: it holds nothing that outlives a run."""
    op.execute("DROP FUNCTION claim_ids")
    op.execute("DROP TABLE walks")
