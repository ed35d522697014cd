"""What is requested in every read, and what a 400 says of it.

A post costs money each UTC day it is read anew (docs.x.com, "Pricing"), so the first read requests everything that is
worth keeping; the price does not depend on the number of fields. The names are those of the `tweet.*` vocabulary,
which the API still takes and then answers in. X renames fields: what it refuses is left out, or requested by its newer
name. In the newer `post.fields` the author's id is had only by expanding the author (OpenAPI 2.167), and a user may be
billed at twice a post.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from twitter_pipeline.x_api.problems import Complaint

# Left out: non_public_metrics, organic_metrics and promoted_metrics (they want the author's own user token, and are
# answered with errors otherwise); source (deprecated); the tools of Community Notes and of media (matched_media_notes,
# media_metadata, note_request_suggestions, suggested_source_links, suggested_source_links_with_counts).
TWEET_FIELDS = (
    "article",
    "attachments",
    "author_id",
    "card_uri",
    "community_id",
    "context_annotations",
    "conversation_id",
    "created_at",
    "display_text_range",
    "edit_controls",
    "edit_history_tweet_ids",
    "entities",
    "geo",
    "id",
    "in_reply_to_user_id",
    "lang",
    "note_tweet",
    "paid_partnership",
    "possibly_sensitive",
    "public_metrics",
    "referenced_tweets",
    "reply_settings",
    "scopes",
    "text",
    "withheld",
)

# referenced_tweets.id is there for the text of retweets, which the API cuts at about 140 characters. No user is
# expanded (author_id, in_reply_to_user_id, mentions): the author is known beforehand, and whether users that come along
# are billed is unsettled. Nor is edit_history_tweet_ids: the ids come as a field, older versions would be extra posts.
TWEET_EXPANSIONS = ("attachments.media_keys", "attachments.poll_ids", "geo.place_id", "referenced_tweets.id")

# Without the non-public metrics, as above.
MEDIA_FIELDS = (
    "alt_text",
    "duration_ms",
    "height",
    "media_key",
    "preview_image_url",
    "public_metrics",
    "type",
    "url",
    "variants",
    "width",
)

POLL_FIELDS = ("duration_minutes", "end_datetime", "id", "options", "voting_status")

PLACE_FIELDS = ("contained_within", "country", "country_code", "full_name", "geo", "id", "name", "place_type")

# Left out: confirmed_email, connection_status, receives_your_dm and subscription (they speak of the caller's own
# account, which an app-only token has not), verified_followers_count (about the own account, too). Nothing is expanded:
# the pinned and the most recent tweet come as ids.
USER_FIELDS = (
    "affiliation",
    "created_at",
    "description",
    "entities",
    "id",
    "is_identity_verified",
    "location",
    "most_recent_tweet_id",
    "name",
    "parody",
    "pinned_tweet_id",
    "profile_banner_url",
    "profile_image_url",
    "protected",
    "public_metrics",
    "subscription_type",
    "url",
    "username",
    "verified",
    "verified_type",
    "withheld",
)

_TWEETS_WANTED: Final[Mapping[str, tuple[str, ...]]] = {
    "tweet.fields": TWEET_FIELDS,
    "expansions": TWEET_EXPANSIONS,
    "media.fields": MEDIA_FIELDS,
    "poll.fields": POLL_FIELDS,
    "place.fields": PLACE_FIELDS,
}
_USERS_WANTED: Final[Mapping[str, tuple[str, ...]]] = {"user.fields": USER_FIELDS}

# The names of OpenAPI 2.167 for those of 2.166.
_NEWER: Final[Mapping[str, str]] = {
    "tweet.fields": "post.fields",
    "note_tweet": "note_post",
    "referenced_tweets": "referenced_posts",
    "referenced_tweets.id": "referenced_posts",
    "edit_history_tweet_ids": "edit_history_post_ids",
    "most_recent_tweet_id": "most_recent_post_id",
    "pinned_tweet_id": "pinned_post_id",
}

# No values of `post.fields` but expansions alone. Of these only the author's is worth what it brings: the users replied
# to may each be billed, as older versions of a post are; referenced posts are expanded anyway.
_EXPANDED_ONLY: Final = frozenset({"author_id", "in_reply_to_user_id", "referenced_tweets", "edit_history_tweet_ids"})


class FieldName(NamedTuple):
    """A field or an expansion, or with an empty `name` the parameter itself."""

    parameter: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} in {self.parameter}" if self.name else self.parameter

    @property
    def newer(self) -> "FieldName | None":
        """What is requested in its place, unless X refuses that too."""
        newer = _NEWER.get(self.name or self.parameter)
        if newer is None:
            return None
        return FieldName(self.parameter, newer) if self.name else FieldName(newer, "")


@dataclass(frozen=True)
class Fields:
    """The parameters of a request that say what comes of each object: all that is `wanted`, less what X has refused.

    `tried` was refused before, and this request shows whether X takes it again.
    """

    wanted: Mapping[str, tuple[str, ...]]
    refused: frozenset[FieldName] = frozenset()
    tried: frozenset[FieldName] = frozenset()

    @cached_property
    def parameters(self) -> Mapping[str, tuple[str, ...]]:
        """The names that are requested, by parameter."""
        requested: dict[str, tuple[str, ...]] = {}
        in_posts = self._taken("tweet.fields") == FieldName("post.fields", "")
        for wanted, names in self.wanted.items():
            parameter = self._taken(wanted)
            if parameter is None:
                continue
            if parameter.parameter == "post.fields":
                names = tuple(name for name in names if name not in _EXPANDED_ONLY)
            if in_posts:
                names = tuple(_NEWER.get(name, name) for name in names)
            taken = (self._taken(parameter.parameter, name) for name in names)
            requested[parameter.parameter] = tuple(each.name for each in taken if each is not None)
        lacks_author = self._is_of_tweets and "author_id" not in requested.get("tweet.fields", ())
        if lacks_author and self._taken("expansions") and self._taken("expansions", "author_id"):
            requested["expansions"] = (*requested.get("expansions", ()), "author_id")
        return {parameter: names for parameter, names in requested.items() if names}

    @cached_property
    def query(self) -> str:
        """The part of the query string that is the same in every call. Commas may stand in a query (RFC 3986)."""
        return "&".join(f"{parameter}={','.join(names)}" for parameter, names in self.parameters.items())

    @property
    def brings_users(self) -> bool:
        """Whether each tweet brings its author, who may be billed."""
        return "author_id" in self.parameters.get("expansions", ())

    @property
    def lacking(self) -> str | None:
        """What tweets would come without although none may lack it, if anything; their ids and texts always come."""
        names = {name for each in self.parameters.values() for name in each}
        if self._is_of_tweets and "created_at" not in names:
            return "their time"
        if self._is_of_tweets and "author_id" not in names:
            return "their author"
        return None

    def refused_by(self, complaints: Iterable[Complaint]) -> frozenset[FieldName]:
        """Return what of this request X does not take, as a 400 says; empty where it complains of something else."""
        return frozenset(name for complaint in complaints for name in self._refused_by(complaint))

    @property
    def _is_of_tweets(self) -> bool:
        return "tweet.fields" in self.wanted

    def _taken(self, parameter: str, name: str = "") -> FieldName | None:
        """Return a name of a parameter, or without one a parameter, or what is newer for it, unless X refuses both."""
        wanted = FieldName(parameter, name)
        return next((each for each in (wanted, wanted.newer) if each is not None and each not in self.refused), None)

    def _refused_by(self, complaint: Complaint) -> Iterable[FieldName]:
        for parameter in self._parameters_of(complaint):
            requested = self.parameters[parameter]
            said, accepted = _split(complaint.message)
            repeated = complaint.parameters.get(parameter, ())
            named = {name for name in (*_quoted(said), *repeated) if name in requested}
            named = named or {name for name in _WORD.findall(said) if name in requested}
            if len(named) == len(requested) > 1:
                # The whole list, repeated.
                named = set[str]()
            listed = accepted.intersection(requested)
            if 2 * len(listed) >= len(requested):
                named |= set(requested) - listed
            yield from (FieldName(parameter, name) for name in named or {""})

    def _parameters_of(self, complaint: Complaint) -> Collection[str]:
        """Return which parameters of this request a complaint is about."""
        if complaint.parameters:
            # With another parameter beside it, it is about both together, as a page size for which a field is too much.
            return () if complaint.parameters.keys() - self.parameters.keys() else complaint.parameters.keys()
        words = set(_WORD.findall(complaint.message))
        if mentioned := self.parameters.keys() & words:
            return mentioned
        if not _OF_FIELDS.search(complaint.message):
            return ()
        quoted = _quoted(_split(complaint.message)[0])
        return [parameter for parameter, names in self.parameters.items() if not quoted.isdisjoint(names)]


_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_0-9]+)*")
_QUOTES = re.compile(r"\[([^\]]*)\]|`([^`]*)`|'([^']*)'|\"([^\"]*)\"")
_OF_FIELDS = re.compile(r"\b(?:fields?|expansions?|parameters?)\b", re.I)
_LIST = re.compile(
    r"\b(?:one of|(?:accepted|allowed|supported|valid) (?:expansions|fields|names|values)(?: are)?)\b:?\s*(.*)",
    re.I | re.S,
)


def _split(message: str) -> tuple[str, frozenset[str]]:
    """Split a message into what it says and the values that it lists as accepted, if it lists them to the end."""
    found = _LIST.search(message)
    if found is None:
        return message, frozenset()
    listed, is_whole = found[1], "]"
    if listed.startswith("["):
        listed, is_whole, _ = listed[1:].partition("]")
    if not is_whole or "..." in listed or "\u2026" in listed:
        return message[: found.start()], frozenset()
    return message[: found.start()], frozenset(_WORD.findall(listed))


def _quoted(text: str) -> frozenset[str]:
    return frozenset(word for groups in _QUOTES.findall(text) for group in groups for word in _WORD.findall(group))


OF_TWEETS: Final = Fields(_TWEETS_WANTED)
OF_USERS: Final = Fields(_USERS_WANTED)
