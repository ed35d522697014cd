"""What is asked for in every read.

A post costs money each UTC day it is read anew (docs.x.com, "Pricing"), so the first read asks for everything that is
worth keeping; the price does not depend on the number of fields. The names are those of the `tweet.*` vocabulary,
which the API still takes and then answers in; in the newer `post.fields` the author's id is had only by expanding the
author (OpenAPI 2.167), and a user may be billed at twice a post.
"""

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

# The part of the query string that is the same in every call, encoded once. Commas may stand in a query (RFC 3986).
TWEET_QUERY = "&".join(
    f"{name}={','.join(values)}"
    for name, values in (
        ("tweet.fields", TWEET_FIELDS),
        ("expansions", TWEET_EXPANSIONS),
        ("media.fields", MEDIA_FIELDS),
        ("poll.fields", POLL_FIELDS),
        ("place.fields", PLACE_FIELDS),
    )
)
USER_QUERY = f"user.fields={','.join(USER_FIELDS)}"
