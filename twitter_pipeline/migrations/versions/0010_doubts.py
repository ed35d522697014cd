"""What responses have not proved: intervals that stay holes until a later response shows the same."""

from alembic import op

from twitter_pipeline.store.schema import sql_file

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the file."""
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(sql_file("16_doubts.sql"))


def downgrade() -> None:
    """Take the table away; an interval in doubt is a hole without it too. Values of an enum cannot be taken away."""
    op.execute("ALTER TABLE user_state DROP COLUMN claims_checked, DROP COLUMN timeline_read_at")
    op.execute("DROP TABLE doubts")
    op.execute("DROP TYPE doubt_kind")
