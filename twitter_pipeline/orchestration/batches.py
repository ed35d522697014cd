"""Accounts as they travel from step to step: plain values, so that a later version can read a stored output."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from twitter_pipeline.accounts import Account
from twitter_pipeline.months import Months, read_month
from twitter_pipeline.request import FetchMode, FetchRequest, read_request
from twitter_pipeline.words import Source

Batch = list[dict[str, Any]]
"""Accounts, and requests whose names could not be looked up: those are without a `user_id`."""


def batch_of(accounts: Sequence[Account]) -> Batch:
    """Return accounts as plain values."""
    return [
        {
            "request": _values_of(account.request),
            "user_id": account.user_id,
            "tweet_count": account.tweet_count,
            "counted_at": None if account.counted_at is None else account.counted_at.isoformat(),
            "note": account.note,
        }
        for account in accounts
    ]


def batch_of_requests(requests: Sequence[FetchRequest]) -> Batch:
    """Return requests whose names could not be looked up as plain values."""
    return [{"request": _values_of(request), "user_id": None} for request in requests]


def accounts_of(batch: Batch) -> list[Account]:
    """Return the accounts of a batch."""
    return [
        Account(
            request=_request_of(values),
            user_id=values["user_id"],
            tweet_count=values["tweet_count"],
            counted_at=None if values["counted_at"] is None else datetime.fromisoformat(values["counted_at"]),
            note=values["note"],
        )
        for values in batch
        if values["user_id"] is not None
    ]


def requests_not_looked_up(batch: Batch) -> list[FetchRequest]:
    """Return the requests of a batch whose names could not be looked up."""
    return [_request_of(values) for values in batch if values["user_id"] is None]


def _values_of(request: FetchRequest) -> dict[str, Any]:
    values, mode = request.as_json(), request.fetch_mode
    if mode.months is not None:
        values["fetch_mode"] = {
            "months": [f"{mode.months.first:%Y-%m}", f"{mode.months.last:%Y-%m}"],
            "source": mode.source.value,
        }
        values["user_id"] = request.user_id
    return values


def _request_of(values: dict[str, Any]) -> FetchRequest:
    request, mode = values["request"], values["request"]["fetch_mode"]
    if isinstance(mode, str):
        return read_request([request])[0]
    first, last = map(read_month, mode["months"])
    return FetchRequest(
        request["username"],
        request["track_after"],
        FetchMode(months=Months(first, last), source=Source(mode["source"])),
        request.get("user_id"),
    )
