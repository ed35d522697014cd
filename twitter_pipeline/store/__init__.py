"""Every statement that touches the database."""
