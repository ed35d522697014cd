"""Download and watch X (Twitter) accounts into PostgreSQL without holes, double bills or tripped limits."""

__version__ = "0.1.0"
