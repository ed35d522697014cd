"""Which responses describe a window, what a refusal leaves behind, and tokens that are suspended."""

from alembic import op

from twitter_pipeline.store.schema import sql_file

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the file."""
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(sql_file("17_refusals.sql"))


def downgrade() -> None:
    """Take it away; a suspended token is active again. A value of an enum cannot be taken away."""
    op.execute(
        "UPDATE tokens SET status = 'active', status_reason = NULL, status_until = NULL "
        "WHERE status::text = 'suspended'"
    )
    op.execute("DELETE FROM alerts WHERE kind::text = 'calls_refused'")
    op.execute("UPDATE tokens SET status_until = NULL WHERE status <> 'capped'")
    op.execute(
        "ALTER TABLE tokens DROP COLUMN capped_until, DROP COLUMN refusals, "
        "DROP CONSTRAINT token_until_is_for_tokens_out_of_use, "
        "ADD CONSTRAINT token_until_is_for_capped CHECK (status_until IS NULL OR status = 'capped')"
    )
    op.execute(
        "ALTER TABLE tokens_endpoint_rl DROP COLUMN answered_at, DROP COLUMN answered_call_at, DROP COLUMN known_at, "
        "DROP COLUMN undescribed, DROP COLUMN refused_since, DROP COLUMN paused_until"
    )
    op.execute("DROP FUNCTION settle_window, window_shown, plausible_reset")
