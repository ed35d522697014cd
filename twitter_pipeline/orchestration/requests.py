"""The request in a run's config: what the Launchpad takes, and what the ops get."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from twitter_pipeline.request import EXAMPLE, FetchRequest, parse_request, read_request

REQUEST_HELP = (
    "The accounts to fetch. Paste the JSON list after `request:`. The same account twice counts once: tracked if "
    "either entry says so, and the wider mode wins."
)

# Types and field names are checked while they are typed; what is in them, and all mistakes at once, on launch.
ENTRY: dict[str, dg.Field] = {
    "username": dg.Field(str, description="with or without @, in any case"),
    "track_after": dg.Field(bool, default_value=False, description="watch the account from then on"),
    "fetch_mode": dg.Field(
        str, default_value="full", description="`full`: everything X gives; `limit:N`: the newest N"
    ),
}


def requests_of_run(run_config: Mapping[str, Any]) -> tuple[FetchRequest, ...]:
    """Read the request of a run's config; raise InvalidRequest with every mistake in it.

    The list itself, or its JSON as text, as a YAML block or a quoted string holds it.
    """
    given: object = run_config.get("request", EXAMPLE)
    return parse_request(given) if isinstance(given, str) else read_request(given)


@dg.config_mapping(
    config_schema={
        "request": dg.Field(
            dg.ScalarUnion(str, [ENTRY]), default_value=EXAMPLE, is_required=False, description=REQUEST_HELP
        ),
    }
)
def request_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse a bad request before a run exists. The ops need no config: they read the request from the run."""
    requests_of_run(config)
    # Without config Dagster logs to the console whatever loggers the job has; the command line has a silent one.
    return {"loggers": {"console": {"config": {"log_level": "INFO"}}}}


def run_config_for(requests: Sequence[FetchRequest]) -> dict[str, Any]:
    """Return the run config of `fetch_tweets` for a request."""
    return {"request": [request.as_json() for request in requests]}
