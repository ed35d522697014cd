"""What runs were expected to take."""

from alembic import op

from twitter_pipeline.store.schema import sql_file

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the file."""
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(sql_file("12_estimates.sql"))


def downgrade() -> None:
    """Take the columns away."""
    for column in ("estimated_calls", "estimated_posts", "estimated_cost_usd", "estimated_s"):
        op.drop_column("fetch_runs", column)
