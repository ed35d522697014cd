"""What the archive search has filled, why holes are there, and imports as a kind of run."""

from alembic import op

from twitter_pipeline.store.schema import sql_file

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the file."""
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(sql_file("11_backfills.sql"))


def downgrade() -> None:
    """Take the columns away. PostgreSQL cannot take a word out of an enum: `import` stays, unused."""
    op.drop_column("fetch_run_accounts", "cause")
    op.drop_column("user_state", "searched")
    op.execute("DROP TYPE hole_cause")
