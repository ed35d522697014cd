"""The first tables: tokens and their windows, users, state, calls, tweets, runs."""

from alembic import op

from twitter_pipeline.store.schema import sql_file

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

FILES = (
    "00_enums.sql",
    "01_tokens.sql",
    "02_tokens_endpoint_rl.sql",
    "03_users.sql",
    "04_user_state.sql",
    "05_api_calls.sql",
    "06_tweets.sql",
    "07_fetch_runs.sql",
)


def upgrade() -> None:
    """Apply the files in their order."""
    # Without parameters the driver sends a file as it is: many statements, and a % is a %.
    connection = op.get_bind().execution_options(no_parameters=True)
    for name in FILES:
        connection.exec_driver_sql(sql_file(name))


def downgrade() -> None:
    """Refuse: going back would drop tweets that were paid for."""
    raise NotImplementedError("there is no way back to an empty schema: drop the database instead")
