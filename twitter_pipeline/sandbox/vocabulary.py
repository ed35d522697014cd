"""What a request may ask for and under which names: the old vocabulary (`tweet`) and that of 2026 (`post`).

The lists are those of the official OpenAPI files 2.166 (tweet) and 2.167 (post) of github.com/xdevplatform/docs.
A request with `post.fields` is answered in the new names, any other in the old ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

TWEET_FIELDS: Final = (
    "article", "attachments", "author_id", "card_uri", "community_id", "context_annotations", "conversation_id",
    "created_at", "display_text_range", "edit_controls", "edit_history_tweet_ids", "entities", "geo", "id",
    "in_reply_to_user_id", "lang", "matched_media_notes", "media_metadata", "non_public_metrics",
    "note_request_suggestions", "note_tweet", "organic_metrics", "paid_partnership", "possibly_sensitive",
    "promoted_metrics", "public_metrics", "referenced_tweets", "reply_settings", "scopes", "source",
    "suggested_source_links", "suggested_source_links_with_counts", "text", "withheld",
)  # fmt: skip
POST_FIELDS: Final = (
    "article", "article_title", "attachments", "card_uri", "community_id", "context_annotations", "conversation_id",
    "created_at", "display_text_range", "edit_controls", "entities", "geo", "id", "lang", "matched_media_notes",
    "media_metadata", "non_public_metrics", "note_post", "note_request_suggestions", "organic_metrics",
    "paid_partnership", "possibly_sensitive", "promoted_metrics", "public_metrics", "reply_settings", "scopes",
    "source", "suggested_source_links", "suggested_source_links_with_counts", "text", "withheld",
)  # fmt: skip
TWEET_EXPANSIONS: Final = (
    "article.cover_media", "article.media_entities", "attachments.media_keys", "attachments.media_source_tweet",
    "attachments.poll_ids", "author_id", "edit_history_tweet_ids", "entities.mentions.username", "geo.place_id",
    "in_reply_to_user_id", "entities.note.mentions.username", "referenced_tweets.id",
    "referenced_tweets.id.attachments.media_keys", "referenced_tweets.id.author_id",
)  # fmt: skip
POST_EXPANSIONS: Final = (
    "article.cover_media", "article.media_entities", "attachments.media_keys", "attachments.media_source_tweet",
    "attachments.poll_ids", "author_id", "edit_history_post_ids", "entities.mentions.username", "geo.place_id",
    "in_reply_to_user_id", "referenced_posts", "username",
)  # fmt: skip
USER_FIELDS: Final = (
    "affiliation", "confirmed_email", "connection_status", "created_at", "description", "entities", "id",
    "is_identity_verified", "location", "most_recent_tweet_id", "name", "parody", "pinned_tweet_id",
    "profile_banner_url", "profile_image_url", "protected", "public_metrics", "receives_your_dm", "subscription",
    "subscription_type", "url", "username", "verified", "verified_followers_count", "verified_type", "withheld",
)  # fmt: skip
POST_USER_FIELDS: Final = (
    "confirmed_email", "connection_status", "created_at", "description", "entities", "id", "is_identity_verified",
    "location", "name", "parody", "profile_banner_url", "profile_image_url", "protected", "public_metrics",
    "receives_your_dm", "subscribes_to_you", "subscription", "subscription_type", "url", "username", "verified",
    "verified_followers_count", "verified_type", "withheld",
)  # fmt: skip
USER_EXPANSIONS: Final = ("affiliation.user_id", "most_recent_tweet_id", "pinned_tweet_id")
POST_USER_EXPANSIONS: Final = ("affiliation", "most_recent_post_id", "pinned_post_id")
MEDIA_FIELDS: Final = (
    "alt_text", "duration_ms", "height", "media_key", "non_public_metrics", "organic_metrics", "preview_image_url",
    "promoted_metrics", "public_metrics", "type", "url", "variants", "width",
)  # fmt: skip
POLL_FIELDS: Final = ("duration_minutes", "end_datetime", "id", "options", "voting_status")
PLACE_FIELDS: Final = (
    "contained_within", "country", "country_code", "full_name", "geo", "id", "name", "place_type",
)  # fmt: skip

USAGE_FIELDS: Final = (
    "cap_reset_day", "daily_client_app_usage", "daily_project_usage", "project_cap", "project_id", "project_usage",
)  # fmt: skip
SEARCH_COUNT_FIELDS: Final = ("end", "start", "tweet_count")

NEW_NAMES: Final[Mapping[str, str]] = {
    "edit_history_tweet_ids": "edit_history_post_ids",
    "referenced_tweets": "referenced_posts",
    "note_tweet": "note_post",
    "retweet_count": "repost_count",
    "tweet_count": "post_count",
    "total_tweet_count": "total_post_count",
    "most_recent_tweet_id": "most_recent_post_id",
    "pinned_tweet_id": "pinned_post_id",
    "tweets": "posts",
}
_OLD_NAMES: Final = {new: old for old, new in NEW_NAMES.items()} | {
    "referenced_posts": "referenced_tweets.id",
    "affiliation": "affiliation.user_id",
}

_ALWAYS: Final[Mapping[str, frozenset[str]]] = {
    "tweet": frozenset({"id", "text", "edit_history_tweet_ids"}),
    "user": frozenset({"id", "name", "username"}),
    "media": frozenset({"media_key", "type"}),
    "poll": frozenset({"id", "options"}),
    "place": frozenset({"id", "full_name"}),
}

_OF_USERS: Final = frozenset(
    {"author_id", "username", "in_reply_to_user_id", "entities.mentions.username", "referenced_tweets.id.author_id"}
)


@dataclass(frozen=True, slots=True)
class Selection:
    """The fields and expansions a request chose, all in the old names; `posts` says that the answer uses the new."""

    tweet: frozenset[str]
    user: frozenset[str]
    media: frozenset[str]
    poll: frozenset[str]
    place: frozenset[str]
    expansions: frozenset[str]
    posts: bool

    @property
    def brings_users(self) -> bool:
        """Whether users come with the tweets."""
        return not self.expansions.isdisjoint(_OF_USERS)

    def name(self, old: str) -> str:
        """Give a name in the vocabulary of the answer."""
        return NEW_NAMES.get(old, old) if self.posts else old


def selection_of(parameters: Mapping[str, str], *, of_users: bool, posts_only: bool) -> Selection:
    """Read the field lists and expansions of a request whose values were checked."""
    names = ("tweet.fields", "post.fields", "user.fields", "media.fields", "poll.fields", "place.fields", "expansions")
    return _selection(tuple(parameters.get(name) for name in names), of_users, posts_only)


@lru_cache(maxsize=256)
def _selection(values: tuple[str | None, ...], of_users: bool, posts_only: bool) -> Selection:
    tweet, post, user, media, poll, place, expansions = values
    expanded = _old(expansions)
    # An expansion brings the field with the ids that it expands, as `expansions=author_id` brings `author_id`.
    roots = frozenset(name.partition(".")[0] for name in expanded)
    nothing: frozenset[str] = frozenset()
    return Selection(
        tweet=_ALWAYS["tweet"] | _old(tweet) | _old(post) | (nothing if of_users else roots),
        user=_ALWAYS["user"] | _old(user) | (roots if of_users else nothing),
        media=_ALWAYS["media"] | _old(media),
        poll=_ALWAYS["poll"] | _old(poll),
        place=_ALWAYS["place"] | _old(place),
        expansions=expanded,
        posts=posts_only or post is not None,
    )


def _old(values: str | None) -> frozenset[str]:
    return frozenset(_OLD_NAMES.get(value, value) for value in values.split(",")) if values else frozenset()


def chosen(thing: Mapping[str, Any], fields: frozenset[str], *, posts: bool) -> dict[str, Any]:
    """Give the fields that were asked for, under the names of the vocabulary."""
    picked = {name: value for name, value in thing.items() if name in fields}
    return renamed(picked) if posts else picked


def renamed(thing: dict[str, Any]) -> dict[str, Any]:
    """Give a thing under the new names."""
    new = {NEW_NAMES.get(name, name): value for name, value in thing.items()}
    if "public_metrics" in new:
        metrics: dict[str, Any] = new["public_metrics"]
        new["public_metrics"] = {NEW_NAMES.get(name, name): value for name, value in metrics.items()}
    return new
