"""Alembic's scripts; each applies numbered files of `sql/`."""
