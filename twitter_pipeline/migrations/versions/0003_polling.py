"""When each tracked account is polled next, and what is known of its rate."""

from alembic import op

from twitter_pipeline.store.schema import sql_file

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the file."""
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(sql_file("09_polling.sql"))


def downgrade() -> None:
    """Take the columns away: they are learned anew."""
    for column in (
        "next_poll_at",
        "handed_to",
        "handed_at",
        "rate_known_at",
        "rate_hours",
        "rate_tweets",
        "tweets_per_hour",
    ):
        op.drop_column("user_state", column)
