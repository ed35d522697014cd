"""Processes of their own for the accounts of a large request."""
