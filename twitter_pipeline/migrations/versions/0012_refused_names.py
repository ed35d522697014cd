"""Fields, expansions and parameters that X does not know."""

from alembic import op

from twitter_pipeline.store.schema import sql_file

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the file."""
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(sql_file("18_refused_names.sql"))


def downgrade() -> None:
    """Take it away. A value of an enum cannot be taken away."""
    op.execute("DROP TABLE refused_names")
    op.execute("DELETE FROM alerts WHERE kind::text = 'name_refused'")
