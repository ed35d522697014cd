"""The X API v2 over HTTP: endpoints, answers, and what they mean."""
