-- Tweets, each once. `text` is the whole text (X cuts long posts and retweets); `raw` is the tweet as it came, with its
-- own includes. raw is json, not jsonb: it keeps escapes that jsonb refuses (a NUL, half a surrogate pair).
--
-- No foreign key on author_id: the loader writes the user first, and a check for each tweet would cost a tenth of the
-- load.

CREATE TABLE tweets (
    id bigint NOT NULL,
    author_id bigint NOT NULL,
    created_at timestamptz NOT NULL,
    kind tweet_kind NOT NULL,
    text text NOT NULL,
    lang text,
    conversation_id bigint,
    in_reply_to_tweet_id bigint,
    in_reply_to_user_id bigint,
    retweeted_tweet_id bigint,
    quoted_tweet_id bigint,
    edit_history_ids bigint[],  -- null unless the tweet was edited
    like_count bigint,
    retweet_count bigint,
    reply_count bigint,
    quote_count bigint,
    bookmark_count bigint,
    impression_count bigint,
    first_read_at timestamptz NOT NULL DEFAULT now(),
    first_read_run_id bigint,
    last_read_at timestamptz NOT NULL DEFAULT now(),
    last_read_run_id bigint,
    raw json NOT NULL,

    CONSTRAINT tweets_pkey PRIMARY KEY (id)
);

-- An author's tweets by time: what people ask for, and what coverage counts by.
CREATE INDEX tweets_author_created_at ON tweets (author_id, created_at);
