"""Alerts, and what was told of them."""

from alembic import op

from twitter_pipeline.store.schema import sql_file

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the file."""
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(sql_file("14_alerts.sql"))


def downgrade() -> None:
    """Take the table away."""
    op.drop_index("users_unavailable")
    op.drop_table("alerts")
    op.execute("DROP TYPE alert_kind")
