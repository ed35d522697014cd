"""What calls cost by UTC day and by run, and budgets as a cause of holes."""

from alembic import op

from twitter_pipeline.store.schema import sql_file

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the file."""
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(sql_file("13_budgets.sql"))


def downgrade() -> None:
    """Take the table and the columns away. PostgreSQL cannot take a word out of an enum: `budget` stays, unused."""
    for when in ("reserved", "billed"):
        op.execute(f"DROP TRIGGER api_call_counts_when_it_is_{when} ON api_calls")
    for function in ("budget_passed", "count_spending", "begin_of_billing_month", "count_bill"):
        op.execute(f"DROP FUNCTION {function}")
    op.drop_table("spending")
    op.drop_column("api_calls", "reserved_posts")
    op.drop_column("api_calls", "reserved_users")
