"""What a stored tweet becomes when it is read again: no reading makes it poorer than an earlier one left it.

Responses differ: another program requested fewer fields, or X left out an included tweet. So a column takes the new
value only where there is one, and `raw` takes the new JSON only if it has all the parts that the stored one has.
"""

from typing import LiteralString


def _parts_of(raw: LiteralString) -> LiteralString:
    r"""Return a query for the parts of a tweet's JSON: note, counts, and each object referred to or included.

    It never fails. PostgreSQL's JSON functions refuse a document with the escape of a NUL or of half a surrogate pair,
    so each `\u` is read as `/u` (and `\\u` as `\/u`, which is valid too). Each member may be of any type. No number is
    converted, as it would be for jsonb.
    """
    return f"""
            SELECT part, coalesce(object ->> 'id', object ->> 'media_key')
            FROM (SELECT replace({raw}::text, '\\u', '/u')::json) AS escaped (tweet)
            CROSS JOIN json_to_record(CASE json_typeof(tweet) WHEN 'object' THEN tweet ELSE '{{}}' END) AS member (
                note_tweet json, note_post json, public_metrics json, referenced_tweets json, referenced_posts json,
                includes json
            )
            CROSS JOIN json_to_record(CASE json_typeof(includes) WHEN 'object' THEN includes ELSE '{{}}' END) AS lists (
                tweets json, posts json, media json, polls json, places json
            )
            CROSS JOIN LATERAL (VALUES
                ('note', note_tweet), ('note', note_post), ('counts', public_metrics), ('reference', referenced_tweets),
                ('reference', referenced_posts), ('tweet', tweets), ('tweet', posts), ('media', media),
                ('poll', polls), ('place', places)
            ) AS named (part, value_or_list)
            CROSS JOIN json_array_elements(
                CASE json_typeof(value_or_list) WHEN 'array' THEN value_or_list ELSE json_build_array(value_or_list) END
            ) AS object
            WHERE value_or_list IS NOT NULL"""


MERGE: LiteralString = f"""    ON CONFLICT (id) DO UPDATE
    SET kind = CASE
            -- Without its references a tweet looks like an original, and a reply that quotes like a quote. A retweet of
            -- no known tweet is a guess from the text.
            WHEN excluded.kind = 'original' OR (excluded.kind = 'quote' AND t.kind = 'reply')
              OR (excluded.kind = 'retweet' AND excluded.retweeted_tweet_id IS NULL) THEN t.kind
            ELSE excluded.kind
        END,
        -- The text of an id never changes, for an edit has an id of its own. So a shorter one was cut, or was removed
        -- here with the rest of the content.
        text = CASE WHEN char_length(excluded.text) < char_length(t.text) THEN t.text ELSE excluded.text END,
        lang = coalesce(excluded.lang, t.lang),
        conversation_id = coalesce(excluded.conversation_id, t.conversation_id),
        in_reply_to_tweet_id = coalesce(excluded.in_reply_to_tweet_id, t.in_reply_to_tweet_id),
        in_reply_to_user_id = coalesce(excluded.in_reply_to_user_id, t.in_reply_to_user_id),
        retweeted_tweet_id = coalesce(excluded.retweeted_tweet_id, t.retweeted_tweet_id),
        quoted_tweet_id = coalesce(excluded.quoted_tweet_id, t.quoted_tweet_id),
        edit_history_ids = coalesce(excluded.edit_history_ids, t.edit_history_ids),
        like_count = coalesce(excluded.like_count, t.like_count),
        retweet_count = coalesce(excluded.retweet_count, t.retweet_count),
        reply_count = coalesce(excluded.reply_count, t.reply_count),
        quote_count = coalesce(excluded.quote_count, t.quote_count),
        bookmark_count = coalesce(excluded.bookmark_count, t.bookmark_count),
        impression_count = coalesce(excluded.impression_count, t.impression_count),
        last_read_at = greatest(excluded.last_read_at, t.last_read_at),
        last_read_run_id = coalesce(excluded.last_read_run_id, t.last_read_run_id),
        raw = CASE WHEN char_length(excluded.text) < char_length(t.text) OR EXISTS (
            {_parts_of("t.raw").strip()}
            EXCEPT
            {_parts_of("excluded.raw").strip()}
        ) THEN t.raw ELSE excluded.raw END"""
"""What follows `INSERT INTO tweets AS t`, for the rows whose tweet is stored.

When a tweet was first read, by which run, its author and its deletion stay; the caller may add to this.
"""

MERGE_SHOWN: LiteralString = f"""{MERGE},
        author_id = CASE
            WHEN (SELECT page.names_author FROM page WHERE page.id = t.id) THEN excluded.author_id ELSE t.author_id
        END,
        deleted_seen_at = NULL"""
"""The same for rows of `page` from X: a tweet that X shows is not deleted, and its author is the one that X names."""
