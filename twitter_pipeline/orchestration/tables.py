"""The tables as assets: what the catalog shows of each, with columns from the models."""

from collections.abc import Sequence
from typing import Any, cast

import dagster as dg
from sqlalchemy import Column, Table
from sqlalchemy.dialects.postgresql import dialect

from twitter_pipeline.models import ApiCall, Base, FetchRun, Token, TokenEndpointRateLimit, Tweet, User, UserState

GROUP = "tables"


def _spec(model: type[Base], *, deps: Sequence[dg.AssetSpec] = (), adds: str = "") -> dg.AssetSpec:
    """Describe a table by its model; `deps` are the tables from which runs get what they write into it."""
    table = cast("Table", model.__table__)
    return dg.AssetSpec(
        table.name,
        deps=deps,
        description=f"{model.__doc__}\n\n{adds}".strip(),
        group_name=GROUP,
        kinds={"postgres"},
        metadata={
            "dagster/table_name": table.name,
            "dagster/column_schema": dg.TableSchema(columns=[_column(each) for each in table.columns]),
        },
    )


def _column(column: Column[Any]) -> dg.TableColumn:
    return dg.TableColumn(
        column.name,
        column.type.compile(dialect()).lower(),
        constraints=dg.TableColumnConstraints(
            nullable=bool(column.nullable), other=["primary key"] if column.primary_key else None
        ),
    )


tokens = _spec(Token, adds="The token itself stays in the environment.")
tokens_endpoint_rl = _spec(
    TokenEndpointRateLimit, deps=[tokens], adds="All processes share it, so that no call is sent that X would refuse."
)
api_calls = _spec(ApiCall, deps=[tokens_endpoint_rl], adds="Every call that was sent, also those that failed.")
users = _spec(User, deps=[api_calls], adds="Names that it had before are in `user_names`.")
tweets = _spec(Tweet, deps=[api_calls, users], adds="Written page by page while runs work.")
user_state = _spec(
    UserState, deps=[users, tweets], adds="A page and the ids that it proves are written in one transaction."
)
fetch_runs = _spec(FetchRun, deps=[api_calls, tweets], adds="What became of each account is in `fetch_run_accounts`.")

TABLES = (tokens, tokens_endpoint_rl, api_calls, users, tweets, user_state, fetch_runs)
