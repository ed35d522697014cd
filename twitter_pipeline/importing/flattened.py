"""Flattened tweets, as `twarc2 flatten` writes them, back into the shape of the API.

What the API sends in `includes` stands there in the tweet itself, beside the ids that point at it: `author`,
`in_reply_to_user`, `attachments.media` and `.poll`, and mixed into `geo`, `entities.mentions` and `referenced_tweets`.
An object that X did not send along is empty or left out.
"""

from twitter_pipeline.x_api.json_values import JsonObject, JsonValue, as_list, as_object

_GEO = ("place_id", "coordinates")
_MENTION = ("start", "end", "username", "id")
_REFERENCE = ("type", "id")
_MEMBERS_OF_OTHERS = ("__twarc", "author", "in_reply_to_user")


class _Includes:
    """The objects that were found in tweets, each once, by section."""

    def __init__(self) -> None:
        self._sections: dict[str, dict[str, JsonValue]] = {}

    def add(self, section: str, thing: JsonValue, *, key: str = "id") -> None:
        """Take an object that has a key; another with the same key is taken for the same."""
        name = as_object(thing).get(key)
        if isinstance(name, str | int):
            self._sections.setdefault(section, {}).setdefault(str(name), thing)

    def as_json(self) -> JsonObject:
        return {section: list(things.values()) for section, things in self._sections.items()}


def unflatten(flat: JsonObject) -> JsonObject:
    """Return a response of the API from which the flattened tweet could have been made."""
    includes = _Includes()
    tweet = _tweet(flat, includes)
    return {"data": [tweet], "includes": includes.as_json()}


def _tweet(flat: JsonObject, includes: _Includes) -> JsonObject:
    includes.add("users", flat.get("author"))
    includes.add("users", flat.get("in_reply_to_user"))
    tweet = {name: value for name, value in flat.items() if name not in _MEMBERS_OF_OTHERS}
    if isinstance(attachments := tweet.get("attachments"), dict):
        tweet["attachments"] = _attachments(attachments, includes)
    if isinstance(geo := tweet.get("geo"), dict):
        tweet["geo"], place = _parted(geo, _GEO)
        includes.add("places", place)
    if isinstance(entities := tweet.get("entities"), dict) and "mentions" in entities:
        mentions = [_parted(as_object(each), _MENTION)[0] for each in as_list(entities["mentions"])]
        tweet["entities"] = {**entities, "mentions": list(mentions)}
    if isinstance(references := tweet.get("referenced_tweets"), list):
        tweet["referenced_tweets"] = [_reference(as_object(each), includes) for each in references]
    return tweet


def _attachments(flat: JsonObject, includes: _Includes) -> JsonObject:
    for media in as_list(flat.get("media")):
        includes.add("media", media, key="media_key")
    includes.add("polls", flat.get("poll"))
    return {name: value for name, value in flat.items() if name not in ("media", "poll")}


def _reference(flat: JsonObject, includes: _Includes) -> JsonObject:
    reference, rest = _parted(flat, _REFERENCE)
    if rest:
        includes.add("tweets", _tweet({"id": flat.get("id"), **rest}, includes))
    return reference


def _parted(mixed: JsonObject, own: tuple[str, ...]) -> tuple[JsonObject, JsonObject]:
    """Return the members with these names, and the others."""
    return (
        {name: value for name, value in mixed.items() if name in own},
        {name: value for name, value in mixed.items() if name not in own},
    )
