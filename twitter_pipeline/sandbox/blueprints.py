"""What tweets say: some hundred whole tweets with slots, from which every tweet of the world is filled in.

Composing 12,000 tweets a second one dictionary at a time would take the processor that the client under test needs;
filling slots in bytes that are ready takes a few microseconds a tweet.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from twitter_pipeline.sandbox.accounts import FRIENDS, Kind
from twitter_pipeline.sandbox.dice import seed_of, throw

Json = dict[str, Any]

VARIANTS: Final = 128
"""How many different tweets of each kind the world has before numbers and names are filled in."""

TEXT_SLOTS: Final = ("created_at", "author_name", "editable_until", "poll_end", "poll_status", "ref_name")
NUMBER_SLOTS: Final = (
    "id", "author_id", "edited_id", "conversation_id", "ref_id", "ref_user_id", "number", "ref_number",
    "retweets", "replies", "likes", "quotes", "bookmarks", "impressions", "votes",
)  # fmt: skip
SLOTS: Final = TEXT_SLOTS + NUMBER_SLOTS

_SHORT: Final = 280
_RETWEET: Final = 140
_NAME_LENGTH: Final = len(FRIENDS[0])

_OPENINGS: Final = (
    ("en", "Nothing in this tweet ever happened."),
    ("en", "The lighthouse keeper reports fog, gulls &amp; a very calm sea."),
    ("en", "if a &lt; b and b &lt; c then today is a good day 🎉"),
    ("en", "Our rover has found another perfectly ordinary rock \U0001faa8 and is delighted."),
    ("en", "Breaking: the tide came in \U0001f30a, as it did yesterday."),
    ("de", "Heute übt der Chor wieder im Gewächshaus, größer als je zuvor."),
    ("fr", "Le train de midi est arrivé en avance, à la surprise générale."),
    ("es", "El faro ya está encendido. ¿Quién trae el café?"),
    ("ja", "灯台からおはようございます。今日は霧が出ています。"),
    ("ar", "صباح الخير من المنارة، الضباب كثيف اليوم"),
    ("he", "בוקר טוב מהמגדלור, הים שקט היום"),
    ("hi", "आज समुद्र शांत है और कोहरा घना है।"),
    ("ko", "등대에서 인사드립니다. 오늘은 안개가 짙습니다."),
    ("en", "👩🏽‍🚀👨‍👩‍👧‍👦🏳️‍🌈 three emoji, nineteen code points."),
    ("qme", "🐚🐚🐚"),
    ("en", "Line one.\nLine two, with \"quotes\", a \\ and a tab\there."),
)  # fmt: skip

_MIDDLES: Final = (
    "The harbour office counted eleven boats, two of which were the same boat.",
    "A reader writes that our map of imaginary islands misses one island.",
    "We measured the silence at noon and found slightly more of it than last week.",
    "The committee will meet on Thursday to decide what Thursday is for.",
    "More on this when there is more, less when there is less.",
    "Thanks to everybody who waved; we waved back.",
)

_TAGS: Final = ("sandbox", "madeup", "Leuchtturm", "灯台", "fog2026", "lighthouse_life")
_PLACES: Final = (
    ("5a110d312052166f", "Nowhere Bay", "Nowhere Bay, Sandbox", "US", "United States", [-70.2, 43.6, -70.1, 43.7]),
    ("3078869807f9dd36", "Irgendwo", "Irgendwo, Sandkasten", "DE", "Germany", [13.0, 52.3, 13.8, 52.7]),
    ("01fbe706f872cb32", "どこか", "どこか, 砂場", "JP", "Japan", [139.5, 35.5, 139.9, 35.8]),
)  # fmt: skip


def slot(name: str) -> str:
    """Give the mark that stands in a text for what differs from tweet to tweet."""
    return f"\ue000{name}\ue001"


def bare_slot(name: str) -> str:
    """Give the mark for a value that is a JSON number."""
    return f"\ue000#{name}\ue001"


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A tweet with every field the API can give, in the old vocabulary, and the objects that belong to it."""

    tweet: Json
    media: tuple[Json, ...] = ()
    poll: Json | None = None
    place: Json | None = None
    reference: str | None = None
    """`retweeted`, `quoted` or `replied_to`, when the tweet refers to another."""
    thread: bool = False
    """The tweet answers the author's own previous one."""
    mentions_friend: bool = False


@dataclass
class Composer:
    """A text in the making, with its entities; offsets count code points, as recorded answers do."""

    text: str = ""
    length: int = 0
    entities: dict[str, list[Json]] = field(default_factory=dict[str, list[Json]])

    def say(self, words: str, shown: int | None = None) -> None:
        """Add words; `shown` is their length when they hold a slot."""
        self.text += words
        self.length += len(words) if shown is None else shown

    def mark(self, kind: str, words: str, shown: int, **facts: object) -> None:
        """Add words that are an entity."""
        start = self.length
        self.say(words, shown)
        self.entities.setdefault(kind, []).append({"start": start, "end": self.length, **facts})

    def hashtag(self, tag: str) -> None:
        """Add a hashtag."""
        self.mark("hashtags", f"#{tag}", len(tag) + 1, tag=tag)

    def mention(self) -> None:
        """Add a mention of the tweet's other account."""
        facts = {"username": slot("ref_name"), "id": slot("ref_user_id")}
        self.mark("mentions", "@" + slot("ref_name"), _NAME_LENGTH + 1, **facts)

    def link(self, number: int) -> None:
        """Add a link in its short form, always 23 characters."""
        short = f"https://t.co/sandbox{number:03}"
        facts = {
            "url": short,
            "expanded_url": f"https://sandbox.example/articles/{number:03}",
            "display_url": f"sandbox.example/articles/{number:03}",
            "status": 200,
            "title": f"Made-up article {number:03}",
            "description": "An article that does not exist, linked from a tweet that nobody wrote.",
            "unwound_url": f"https://sandbox.example/articles/{number:03}",
        }
        self.mark("urls", short, len(short), **facts)

    def media_link(self, number: int, media_key: str) -> None:
        """Add the link that stands for attached media."""
        short = f"https://t.co/sandpic{number:03}"
        expanded = f"https://x.com/{slot('author_name')}/status/{slot('id')}/photo/1"
        display = f"pic.x.com/sandpic{number:03}"
        self.mark("urls", short, len(short), url=short, expanded_url=expanded, display_url=display, media_key=media_key)

    def sign(self, name: str = "number") -> None:
        """Say that the tweet is made up, and which of its author's it is."""
        self.say(f" (sandbox {slot(name)})", 17)

    def cut(self, length: int, tail: str) -> "Composer":
        """Give the text shortened to a number of code points, with the entities that lie wholly within."""
        kept = {
            kind: inside
            for kind, entities in self.entities.items()
            if (inside := [entity for entity in entities if entity["end"] <= length])
        }
        return Composer(_first(self.text, length) + tail, length + len(tail), kept)


def _first(text: str, length: int) -> str:
    """Give the first code points of a text, in which a mention at its start is the only slot that early."""
    mention = "@" + slot("ref_name")
    if text.startswith(mention):
        return text[: len(mention) + length - (_NAME_LENGTH + 1)]
    return text[:length]


@cache
def blueprint(seed: int, kind: Kind, variant: int, thread: bool = False) -> Blueprint:
    """Give the tweet number `variant` of a kind."""
    chance = throw(seed_of(seed, "blueprint", kind, thread), variant)
    if kind == "retweet":
        return _retweet(seed, variant)
    composer = Composer()
    friendly = kind == "reply" and not thread
    if friendly:
        composer.mention()
        composer.say(" ")
    language = _write(composer, chance, variant)
    parts = _Parts(kind=kind, language=language, thread=thread, chance=chance, variant=variant)
    return parts.assemble(composer, mentions_friend=friendly)


def _write(composer: Composer, chance: int, variant: int) -> str:
    """Write an opening, one or more sentences, hashtags, perhaps a link; give the language."""
    language, opening = _OPENINGS[variant % len(_OPENINGS)]
    composer.say(opening + " ")
    for sentence in range(_sentences(chance)):
        composer.say(_MIDDLES[(chance >> (3 * sentence)) % len(_MIDDLES)] + " ")
    composer.hashtag(_TAGS[0])
    if chance & 1:
        composer.say(" ")
        composer.hashtag(_TAGS[1 + (chance >> 8) % (len(_TAGS) - 1)])
    if chance >> 4 & 3 == 0:
        composer.say(" ")
        composer.link(variant)
    return language


def _sentences(chance: int) -> int:
    """Choose the length: one tweet in twelve is a long one, which the API shows whole only in `note_tweet`."""
    if (chance >> 12) % 12 == 0:
        return 5 + (chance >> 16) % 20
    return (chance >> 16) % 3


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What decides how the tweet around a text looks."""

    kind: Kind
    language: str
    thread: bool
    chance: int
    variant: int

    def assemble(self, composer: Composer, *, mentions_friend: bool) -> Blueprint:
        reference = {"reply": "replied_to", "quote": "quoted"}.get(self.kind)
        media = self._media()
        if media:
            composer.say(" ")
            composer.media_link(self.variant, media[0]["media_key"])
        composer.sign()
        tweet = tweet_of(composer, language=self.language, reference=reference)
        if reference == "replied_to":
            tweet["in_reply_to_user_id"] = slot("author_id") if self.thread else slot("ref_user_id")
        if self.variant % 16 == 5:
            tweet["edit_history_tweet_ids"] = [slot("edited_id"), slot("id")]
            tweet["edit_controls"]["edits_remaining"] = 4
        if self.chance >> 40 & 3 == 0:
            tweet["context_annotations"] = _CONTEXT
        poll = self._poll() if not media and self.variant % 32 == 9 else None
        attachments: Json = {}
        if media:
            attachments["media_keys"] = [item["media_key"] for item in media]
        if poll:
            attachments["poll_ids"] = [poll["id"]]
        if attachments:
            tweet["attachments"] = attachments
        place = place_of(self.variant // 16) if self.variant % 16 == 3 else None
        if place:
            tweet["geo"] = {"place_id": place["id"]}
        return Blueprint(
            tweet=tweet,
            media=media,
            poll=poll,
            place=place,
            reference=reference,
            thread=self.thread,
            mentions_friend=mentions_friend,
        )

    def _media(self) -> tuple[Json, ...]:
        choice = (self.chance >> 24) % 16
        if choice < 2:
            return tuple(_photo(number) for number in range(choice + 1))
        if choice == 2:
            return (_video(),)
        if choice == 3:
            return (_animated_gif(),)
        return ()

    def _poll(self) -> Json:
        options = [
            {"position": 1, "label": "Fog", "votes": bare_slot("votes")},
            {"position": 2, "label": "More fog", "votes": bare_slot("likes")},
        ]
        return {
            "id": slot("id"),
            "options": options,
            "duration_minutes": 1440,
            "end_datetime": slot("poll_end"),
            "voting_status": slot("poll_status"),
        }


def tweet_of(composer: Composer, *, language: str, reference: str | None) -> Json:
    """Put the fields that every tweet has around a text."""
    shown = composer if composer.length <= _SHORT else composer.cut(_SHORT - 25, "… https://t.co/sandboxlng")
    tweet: Json = {
        "id": slot("id"),
        "text": shown.text,
        "edit_history_tweet_ids": [slot("id")],
        "author_id": slot("author_id"),
        "created_at": slot("created_at"),
        "conversation_id": slot("conversation_id"),
        "display_text_range": [0, shown.length],
        "lang": language,
        "possibly_sensitive": False,
        "reply_settings": "everyone",
        "source": "Sandbox",
        "public_metrics": {
            "retweet_count": bare_slot("retweets"),
            "reply_count": bare_slot("replies"),
            "like_count": bare_slot("likes"),
            "quote_count": bare_slot("quotes"),
            "bookmark_count": bare_slot("bookmarks"),
            "impression_count": bare_slot("impressions"),
        },
        "edit_controls": {
            "edits_remaining": 5,
            "is_edit_eligible": reference != "replied_to",
            "editable_until": slot("editable_until"),
        },
    }
    if shown.entities:
        tweet["entities"] = shown.entities
    if shown is not composer:
        tweet["note_tweet"] = {"text": composer.text, "entities": composer.entities}
    if reference:
        tweet["referenced_tweets"] = [{"type": reference, "id": slot("ref_id")}]
    return tweet


def _retweet(seed: int, variant: int) -> Blueprint:
    """Repeat a friend's tweet: the text is cut, the whole is in the tweet referred to."""
    source = blueprint(seed, "original", variant).tweet
    whole = source.get("note_tweet", source)
    text = str(whole["text"]).replace(slot("number"), slot("ref_number"))
    shown = len(text) - (len(slot("ref_number")) - 6 if slot("ref_number") in text else 0)
    composer = Composer()
    composer.say("RT ")
    composer.mention()
    composer.say(": ")
    start = composer.length
    room = _RETWEET - start
    if shown > room:
        composer.say(_cut_whole(text, room - 1) + "…")
    else:
        composer.say(text, shown)
    for kind, entities in whole.get("entities", {}).items():
        for entity in entities:
            if kind != "urls" and entity["end"] <= room - 1:
                moved = {**entity, "start": entity["start"] + start, "end": entity["end"] + start}
                composer.entities.setdefault(kind, []).append(moved)
    tweet = tweet_of(composer, language=source["lang"], reference="retweeted")
    tweet["public_metrics"] = {
        "retweet_count": bare_slot("retweets"),
        "reply_count": 0,
        "like_count": 0,
        "quote_count": 0,
        "bookmark_count": 0,
        "impression_count": 0,
    }
    return Blueprint(tweet=tweet, reference="retweeted", mentions_friend=True)


def _cut_whole(text: str, length: int) -> str:
    """Cut a text without leaving half an escape, which no client could undo, or half a slot."""
    head = text[:length].partition("\ue000")[0]
    escape = head.rfind("&")
    return head[:escape] if escape >= 0 and ";" not in head[escape:] else head


def place_of(number: int) -> Json:
    """Give one of the few places there are."""
    place_id, name, full_name, code, country, box = _PLACES[number % len(_PLACES)]
    return {
        "id": place_id,
        "name": name,
        "full_name": full_name,
        "country": country,
        "country_code": code,
        "place_type": "city",
        "geo": {"type": "Feature", "bbox": box, "properties": {}},
    }


_CONTEXT: Final[list[Json]] = [
    {
        "domain": {"id": "65", "name": "Interests and Hobbies Vertical", "description": "Made-up interests"},
        "entity": {"id": "1000000000000000001", "name": "Lighthouses"},
    },
    {
        "domain": {"id": "66", "name": "Interests and Hobbies Category", "description": "Made-up hobbies"},
        "entity": {"id": "1000000000000000002", "name": "Fog"},
    },
]  # fmt: skip


def _photo(number: int) -> Json:
    return {
        "media_key": f"3_{slot('id')}{number}",
        "type": "photo",
        "url": f"https://media.sandbox.example/{slot('id')}-{number}.jpg",
        "width": 1200,
        "height": 675,
        "alt_text": "A made-up photograph of fog",
    }


def _video() -> Json:
    address = f"https://media.sandbox.example/{slot('id')}"
    return {
        "media_key": f"13_{slot('id')}",
        "type": "video",
        "preview_image_url": f"{address}.jpg",
        "width": 1280,
        "height": 720,
        "duration_ms": 17_250,
        "public_metrics": {"view_count": bare_slot("impressions")},
        "variants": [
            {"bit_rate": 832_000, "content_type": "video/mp4", "url": f"{address}-640.mp4"},
            {"content_type": "application/x-mpegURL", "url": f"{address}.m3u8"},
        ],
    }


def _animated_gif() -> Json:
    address = f"https://media.sandbox.example/{slot('id')}"
    return {
        "media_key": f"16_{slot('id')}",
        "type": "animated_gif",
        "preview_image_url": f"{address}.jpg",
        "width": 480,
        "height": 270,
        "variants": [{"bit_rate": 0, "content_type": "video/mp4", "url": f"{address}.mp4"}],
    }
