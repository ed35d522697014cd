"""Bringing tweets in from files that people have: what the API answered, exports of ours, and X's account archive."""
