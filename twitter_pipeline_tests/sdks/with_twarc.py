"""twarc, which speaks the tweet vocabulary and asks for nearly all there is."""

import json
import sys
from datetime import UTC, datetime

from elsewhere import X, redirect
from twarc.client2 import Twarc2

asked = json.load(sys.stdin)
client = Twarc2(bearer_token=asked["bearer"])
redirect(client.client, asked["url"])
start_time, epoch = (datetime.fromisoformat(asked[name]).astimezone(UTC) for name in ("start_time", "epoch"))

(users,) = client.user_lookup(asked["usernames"], usernames=True)
ids = [user["id"] for user in users["data"]]
timeline = list(client.timeline(ids[0]))
recent = list(client.search_recent(asked["query"], start_time=start_time))
archive = list(client.search_all(asked["query"], start_time=epoch, max_results=500))
counts = [
    list(client.counts_recent(asked["query"], start_time=start_time, granularity="day")),
    list(client.counts_all(asked["query"], start_time=epoch, granularity="day")),
]
added = client.add_stream_rules(asked["rules"])
again = client.add_stream_rules(asked["rules"])
rules = client.get_stream_rules()["data"]
streamed = next(client.stream())
deleted = client.delete_stream_rule_ids([rule["id"] for rule in rules])

print(
    json.dumps(
        {
            "users": {user["username"]: user["public_metrics"]["tweet_count"] for user in users["data"]},
            "users_by_id": [user["username"] for page in client.user_lookup(ids) for user in page["data"]],
            "errors": {error["value"]: error["title"] for error in users["errors"]},
            "closed": [
                error["title"] for error in client.get(f"{X}/2/users/{asked['protected']}/tweets").json()["errors"]
            ],
            "timeline": [int(tweet["id"]) for page in timeline for tweet in page["data"]],
            "likes": sum(tweet["public_metrics"]["like_count"] for page in timeline for tweet in page["data"]),
            "recent": [int(tweet["id"]) for page in recent for tweet in page["data"]],
            "archive": [int(tweet["id"]) for page in archive for tweet in page["data"]],
            "counts": [[bucket["tweet_count"] for page in pages[::-1] for bucket in page["data"]] for pages in counts],
            "rules": [
                added["meta"]["summary"],
                {rule["value"]: rule.get("tag") for rule in rules},
                deleted["meta"]["summary"],
            ],
            "again": [again["meta"]["summary"], [(error["title"], error["value"]) for error in again["errors"]]],
            "streamed": [int(streamed["data"]["id"]), *sorted(rule["tag"] for rule in streamed["matching_rules"])],
        }
    )
)
