-- Accounts as X describes them. The id is the key: names change hands.

CREATE TABLE users (
    id bigint NOT NULL,
    username text,  -- null while somebody else holds the name we knew
    name text,
    description text,
    location text,
    profile_image_url text,
    created_at timestamptz,
    protected boolean,
    verified boolean,
    verified_type text,
    followers_count bigint,
    following_count bigint,
    tweet_count bigint,
    listed_count bigint,
    availability availability NOT NULL DEFAULT 'active',
    availability_reason text,
    availability_since timestamptz NOT NULL DEFAULT now(),
    profile_read_at timestamptz,  -- when X last gave the whole profile: it is billed, so it is kept for days
    first_read_at timestamptz NOT NULL DEFAULT now(),
    raw json,

    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT user_username_is_a_handle CHECK (username ~ '^[A-Za-z0-9_]{1,15}$')
);

-- X compares names without regard to case; a name belongs to whoever holds it now.
CREATE UNIQUE INDEX users_username ON users (lower(username));

-- Every name an account was seen with, and when. seen_until is null for the name it holds.
CREATE TABLE user_names (
    user_id bigint NOT NULL,
    username text NOT NULL,
    seen_from timestamptz NOT NULL DEFAULT now(),
    seen_until timestamptz,

    CONSTRAINT user_names_pkey PRIMARY KEY (user_id, seen_from),
    CONSTRAINT user_name_belongs_to_a_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT user_name_ends_after_it_begins CHECK (seen_until >= seen_from)
);

CREATE INDEX user_names_username ON user_names (lower(username));
