"""Calls of which it is unknown whether X has billed them."""

import re

from alembic import op

from twitter_pipeline.store.schema import sql_file

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

BEFORE = {
    "calls_in_flight": "05_api_calls.sql",
    "count_bill": "13_budgets.sql",
    "budget_passed": "13_budgets.sql",
    "count_spending": "15_partitions.sql",
}
"""Where each function is as it was before."""


def upgrade() -> None:
    """Apply the file."""
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(sql_file("19_unknown_bills.sql"))


def downgrade() -> None:
    """Take it away: a lost call is one without an outcome again. A value of an enum cannot be taken away."""
    op.execute("UPDATE api_calls SET outcome = NULL WHERE outcome::text = 'lost'")
    for name, file in BEFORE.items():
        found = re.search(rf"FUNCTION {name}\(.*?\n\$\$;", sql_file(file), re.DOTALL)
        assert found is not None
        op.get_bind().execution_options(no_parameters=True).exec_driver_sql(f"CREATE OR REPLACE {found[0]}")
    op.execute("DROP FUNCTION counted_bill")
