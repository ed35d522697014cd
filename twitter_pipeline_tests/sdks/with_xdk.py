"""X's own SDK, which speaks the post vocabulary and whose models check every answer."""

import json
import sys

from xdk import Client
from xdk.stream.models import UpdateRulesRequest

asked = json.load(sys.stdin)
client = Client(base_url=asked["url"], bearer_token=asked["bearer"])
fields, expansions = asked["post_fields"], asked["post_expansions"]
since = {"query": asked["query"], "start_time": asked["start_time"]}
counted = {"granularity": "day", "search_count_fields": "end,post_count,start"}


def change_rules(**body):
    return client.stream.update_rules(UpdateRulesRequest(**body)).meta.summary


users = client.users.get_by_usernames(asked["usernames"], user_fields=asked["post_user_fields"], post_fields=["id"])
ids = [user.id for user in users.data]
closed = next(client.users.get_posts(asked["protected"], post_fields=["id"]))
timeline = list(client.users.get_posts(ids[0], max_results=100, post_fields=fields, expansions=expansions))
recent = list(client.posts.search_recent(**since, max_results=100, post_fields=fields, expansions=expansions))
archive = list(client.posts.search_all(asked["query"], start_time=asked["epoch"], max_results=500, post_fields=fields))
counts = [
    list(client.posts.get_counts_recent(**since, **counted)),
    list(client.posts.get_counts_all(asked["query"], start_time=asked["epoch"], **counted)),
]
usage = client.usage.get(usage_fields=["daily_project_usage", "project_usage"]).data
added = change_rules(add=asked["rules"])
rules = next(client.stream.get_rules()).data
streamed = next(client.stream.posts(tweet_fields=["author_id", "created_at"]))
deleted = change_rules(delete={"ids": [rule.id for rule in rules]})

print(
    json.dumps(
        {
            "users": {user.username: user.public_metrics.post_count for user in users.data},
            "users_by_id": [user.username for user in client.users.get_by_ids(ids, post_fields=["id"]).data],
            "errors": {error.value: error.title for error in users.errors},
            "closed": [error.title for error in closed.errors],
            "timeline": [int(post.id) for page in timeline for post in page.data],
            "likes": sum(post.public_metrics.like_count for page in timeline for post in page.data),
            "recent": [int(post.id) for page in recent for post in page.data],
            "archive": [int(post.id) for page in archive for post in page.data],
            "counts": [[bucket.post_count for page in pages[::-1] for bucket in page.data] for pages in counts],
            "rules": [added, {rule.value: rule.tag for rule in rules}, deleted],
            "streamed": [int(streamed.data.id), *sorted(rule.tag for rule in streamed.matching_rules)],
            "usage": [usage.project_usage, usage.daily_project_usage.usage[-1].usage],
        }
    )
)
