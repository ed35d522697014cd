"""Databases of a million tweets and of many, made by SQL: what is watched is the same, the archive behind it is not.

Five hundred accounts are watched and wrote the tweets of the last year; every further account was fetched once and lies
in the years before. So what the pipeline and most people ask for is the same in both, in a table of another size.
"""

from benchmarks.place import connected

TWEETS_AN_ACCOUNT = 2_000
WATCHED = 500
"""Their tweets make the first million."""

CALLS_A_MILLION = 20_000
"""As pages of 50 tweets take."""

ARCHIVE_YEARS = 12
ARCHIVE_S = ARCHIVE_YEARS * 366 * 86_400
"""The archive lies in the years from 2013 on."""

# A profile's JSON is some 900 bytes, as those of X.
ACCOUNTS = """
INSERT INTO users (id, username, name, description, created_at, tweet_count, profile_read_at, raw)
SELECT n, 'account_' || n, 'Account ' || n, words, '2012-01-01', %(tweets)s, now(),
       format(
           '{"id":"%%1$s","username":"account_%%1$s","name":"Account %%1$s","created_at":"2012-01-01T00:00:00.000Z",'
           '"description":"%%2$s","location":"%%3$s","profile_image_url":"https://pbs.twimg.com/profile_images/%%3$s'
           '/%%3$s_normal.jpg","protected":false,"verified":false,"verified_type":"none","pinned_tweet_id":"%%1$s",'
           '"url":"https://t.co/%%3$s","entities":{"url":{"urls":[{"start":0,"end":23,"url":"https://t.co/%%3$s",'
           '"expanded_url":"https://example.org/%%3$s","display_url":"example.org/%%3$s"}]}},"public_metrics":'
           '{"followers_count":%%1$s,"following_count":%%1$s,"tweet_count":%%4$s,"listed_count":7,"like_count":%%1$s,'
           '"media_count":70}}',
           n, words, left(md5(n::text), 10), %(tweets)s
       )::json
FROM generate_series(%(first)s::int, %(last)s::int) AS n
CROSS JOIN LATERAL (SELECT md5(n::text) || ' ' || md5((n + 1)::text) || ' ' || md5((n + 2)::text) AS words) AS written
"""

STATES = """
INSERT INTO user_state (user_id, is_tracked, tracked_since, covered, next_poll_at, last_polled_at)
SELECT n, n <= %(watched)s, now() - interval '1 year', '{[1,2)}', now() + interval '1 hour', now()
FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""

COVERED = """
UPDATE user_state SET covered = covered + int8multirange(int8range(lowest, highest + 1))
FROM (SELECT author_id, min(id) AS lowest, max(id) AS highest FROM tweets GROUP BY 1) AS stored
WHERE user_id = author_id
"""

# An account's tweets lie together, as a fetch leaves them; a tweet's JSON is some 800 bytes, as those of X.
TWEETS = """
INSERT INTO tweets (
    id, author_id, created_at, kind, text, lang, conversation_id, in_reply_to_user_id, like_count, retweet_count,
    reply_count, quote_count, bookmark_count, impression_count, first_read_at, last_read_at, raw
)
SELECT t.id, t.author, date_trunc('second', t.at), CASE t.n %% 5 WHEN 0 THEN 'reply' ELSE 'original' END::tweet_kind,
       t.words, 'en', t.id, CASE WHEN t.n %% 5 = 0 THEN 1 + t.n %% 400 END, t.n %% 997, t.n %% 89, t.n %% 13, t.n %% 7,
       t.n %% 5, t.n * 10, t.at + interval '5 minutes', t.at + interval '5 minutes',
       format(
           '{"id":"%%1$s","author_id":"%%2$s","created_at":"%%3$s","text":"%%4$s","lang":"en","conversation_id":"%%1$s",'
           '"edit_history_tweet_ids":["%%1$s"],"possibly_sensitive":false,"reply_settings":"everyone","public_metrics":'
           '{"retweet_count":%%5$s,"reply_count":2,"like_count":%%6$s,"quote_count":0,"bookmark_count":1,'
           '"impression_count":%%7$s},"entities":{"hashtags":[{"start":0,"end":6,"tag":"tag%%5$s"}],"urls":[{"start":90,'
           '"end":113,"url":"https://t.co/%%8$s","expanded_url":"https://example.org/articles/%%8$s","display_url":'
           '"example.org/articles/%%8$s"}]},"includes":{}}',
           t.id, t.author, to_char(t.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS".000Z"'), t.words, t.n %% 89,
           t.n %% 997, t.n * 10, left(md5(t.id::text), 10)
       )::json
FROM (
    SELECT author, n, written.at, id_at(written.at) + author AS id,
           '#tag' || n %% 89 || ' ' || left(md5(n::text || author) || ' ' || md5(author::text || n) || ' '
           || md5((n + author)::text) || ' ' || md5((n * author)::text), 60 + (n * 7 + author) %% 80) AS words
    FROM generate_series(%(first)s::int, %(last)s::int) AS author
    CROSS JOIN generate_series(1, %(tweets)s) AS n
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN author <= %(watched)s THEN now() - (n - 0.5) * interval '1 year' / %(tweets)s
            ELSE timestamptz '2013-01-01 00:00+00' + interval '1 second'
                * ((author * 7919 %% 1000) / 1000.0 * %(archive_s)s * 0.75 + n * (%(archive_s)s * 0.25 / %(tweets)s))
        END AS at
    ) AS written
) AS t
"""

CALLS = """
INSERT INTO api_calls (
    called_at, endpoint, token_id, user_id, status_code, outcome, rl_limit, rl_remaining, rl_reset_at, result_count,
    billed_posts, billed_users, duration_ms
)
SELECT at, '/2/users/:id/tweets', 1, 1 + n %% 500, 200, 'ok', 10000, 9000, at + interval '10 minutes', 50, 50, 0, 200
FROM generate_series(%(first)s::int, %(last)s::int) AS n
CROSS JOIN LATERAL (
    SELECT CASE WHEN n <= %(lately)s THEN now() - n * interval '30 days' / %(lately)s
                ELSE now() - interval '30 days' - (n %% 1000000) * interval '60 days' / 1000000 END AS at
) AS sent
"""


def fill(url: str, *, millions: int) -> None:
    """Fill an empty database with so many million tweets, a million at a time."""
    each = 1_000_000 // TWEETS_AN_ACCOUNT
    with connected(url) as connection:
        connection.execute("INSERT INTO tokens (env_key) VALUES ('TWITTER_BEARER_1')")
        for number in range(millions):
            values = {
                "first": number * each + 1,
                "last": (number + 1) * each,
                "tweets": TWEETS_AN_ACCOUNT,
                "watched": WATCHED,
                "archive_s": ARCHIVE_S,
            }
            for statement in (ACCOUNTS, STATES, TWEETS):
                connection.execute(statement, values)
            calls = {"first": number * CALLS_A_MILLION + 1, "last": (number + 1) * CALLS_A_MILLION}
            connection.execute(CALLS, {**calls, "lately": CALLS_A_MILLION})
        connection.execute(COVERED)
        connection.execute("VACUUM (ANALYZE)")
