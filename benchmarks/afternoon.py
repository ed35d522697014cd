"""What an afternoon script does: page through timelines with httpx, collect the tweets, give them to pandas.

Run as a process of its own by `benchmarks.load`: `python -m benchmarks.afternoon URL TOKEN DATABASE_URL < names.json`.
It asks for the same fields in the same pages. It keeps the tweets and leaves out what came along with them (media,
referenced tweets, polls, places), knows no interruption, no limits and no second run, and stores into a table without
a key or an index: all in its favour.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pandas as pd
from sqlalchemy import create_engine

from twitter_pipeline.x_api.fields import OF_TWEETS, OF_USERS

PAGE = 50


def pages_of(client: httpx.Client, user_id: str) -> Iterator[httpx.Response]:
    """Give the pages of a timeline, newest first."""
    query = f"max_results={PAGE}&{OF_TWEETS.query}"
    token = ""
    while True:
        response = client.get(f"/2/users/{user_id}/tweets?{query}{token}").raise_for_status()
        yield response
        # The sandbox writes meta last, and a token for older tweets first in it: so who only wants to walk need not
        # parse the page.
        _, found, rest = response.content[-300:].partition(b'"next_token":"')
        if not found:
            return
        token = "&pagination_token=" + rest.partition(b'"')[0].decode()


def user_ids_of(client: httpx.Client, usernames: Sequence[str]) -> list[str]:
    """Look up names, 100 a call."""
    found: list[str] = []
    for start in range(0, len(usernames), 100):
        names = ",".join(usernames[start : start + 100])
        answer = client.get(f"/2/users/by?usernames={names}&{OF_USERS.query}").raise_for_status()
        found += [user["id"] for user in answer.json()["data"]]
    return found


def api(url: str, token: str) -> httpx.Client:
    """Make a client as the script would."""
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False)


def collect(url: str, token: str, usernames: Sequence[str]) -> list[dict[str, Any]]:
    """Fetch all tweets of all accounts into memory, nested members as JSON text so that a table takes them."""
    tweets: list[dict[str, Any]] = []
    with api(url, token) as client:
        for user_id in user_ids_of(client, usernames):
            for response in pages_of(client, user_id):
                tweets += [
                    {
                        key: json.dumps(value) if isinstance(value, dict | list) else value
                        for key, value in tweet.items()
                    }
                    for tweet in response.json().get("data", [])
                ]
    return tweets


def main() -> None:
    """Fetch and store; print how long each took."""
    url, token, database_url = sys.argv[1:]
    usernames = json.load(sys.stdin)
    began = time.monotonic()
    tweets = collect(url, token, usernames)
    collected = time.monotonic()
    engine = create_engine(database_url)
    pd.DataFrame(tweets).to_sql("afternoon_tweets", engine, index=False)
    stored = time.monotonic()
    print(json.dumps({"tweets": len(tweets), "fetch_s": collected - began, "store_s": stored - collected}))


if __name__ == "__main__":
    main()
