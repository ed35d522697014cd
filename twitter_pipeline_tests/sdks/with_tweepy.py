"""tweepy, which speaks the tweet vocabulary."""

import json
import sys

import tweepy
from elsewhere import redirect

asked = json.load(sys.stdin)
client = tweepy.Client(asked["bearer"])
fields, expansions = asked["tweet_fields"], asked["tweet_expansions"]
since = {"query": asked["query"], "start_time": asked["start_time"]}


class Stream(tweepy.StreamingClient):
    """Takes one tweet."""

    def on_response(self, response):
        self.first = response
        self.disconnect()


def pages(method, *args, **parameters):
    return list(tweepy.Paginator(method, *args, tweet_fields=fields, expansions=expansions, **parameters))


stream = Stream(asked["bearer"], max_retries=0)
for each in (client, stream):
    redirect(each.session, asked["url"])
users = client.get_users(usernames=asked["usernames"], user_fields=asked["user_fields"])
ids = [user.id for user in users.data]
timeline = pages(client.get_users_tweets, ids[0], max_results=100)
recent = pages(client.search_recent_tweets, **since, max_results=100)
archive = pages(client.search_all_tweets, asked["query"], start_time=asked["epoch"], max_results=500)
counts = [
    list(tweepy.Paginator(client.get_recent_tweets_count, **since, granularity="day")),
    list(tweepy.Paginator(client.get_all_tweets_count, asked["query"], start_time=asked["epoch"], granularity="day")),
]
wanted = [tweepy.StreamRule(**rule) for rule in asked["rules"]]
tried = stream.add_rules(wanted, dry_run=True)
added = stream.add_rules(wanted)
again = stream.add_rules(wanted)
rules = stream.get_rules().data
stream.filter(tweet_fields=["author_id", "created_at"])
deleted = stream.delete_rules(rules)

print(
    json.dumps(
        {
            "users": {user.username: user.public_metrics["tweet_count"] for user in users.data},
            "users_by_id": [user.username for user in client.get_users(ids=ids).data],
            "errors": {error["value"]: error["title"] for error in users.errors},
            "closed": [error["title"] for error in client.get_users_tweets(asked["protected"]).errors],
            "timeline": [tweet.id for page in timeline for tweet in page.data],
            "likes": sum(tweet.public_metrics["like_count"] for page in timeline for tweet in page.data),
            "recent": [tweet.id for page in recent for tweet in page.data],
            "archive": [tweet.id for page in archive for tweet in page.data],
            "counts": [[bucket["tweet_count"] for page in pages[::-1] for bucket in page.data] for pages in counts],
            "rules": [added.meta["summary"], {rule.value: rule.tag for rule in rules}, deleted.meta["summary"]],
            "tried": tried.meta["summary"],
            "again": [again.meta["summary"], [(error["title"], error["value"]) for error in again.errors]],
            "streamed": [stream.first.data.id, *sorted(rule.tag for rule in stream.first.matching_rules)],
        }
    )
)
