-- The words of the tables. An enum refuses a word that the code does not know, and says in one place what there is.

CREATE TYPE token_status AS ENUM (
    'active',
    'invalid',  -- 401: the secret is wrong or was revoked
    'revoked',  -- 403: the app may not use the API at all
    'capped'    -- posts or money are used up, until status_until
);

CREATE TYPE availability AS ENUM ('active', 'protected', 'suspended', 'not_found');

CREATE TYPE tweet_kind AS ENUM ('original', 'reply', 'retweet', 'quote');

CREATE TYPE call_outcome AS ENUM (
    'ok',
    'bad_request',
    'token_rejected',
    'token_forbidden',
    'usage_capped',
    'too_many_requests',
    'resource_forbidden',
    'resource_not_found',
    'server_fault',
    'connection_fault',
    'unreadable_answer'
);

CREATE TYPE fetch_kind AS ENUM ('history', 'incremental', 'backfill', 'reconcile');

CREATE TYPE run_status AS ENUM (
    'running',
    'done',       -- everything asked for is there
    'partial',    -- some accounts could not be fetched; running again does the rest
    'failed',     -- broken off; what was fetched is stored
    'cancelled'
);

CREATE TYPE account_outcome AS ENUM (
    'pending',
    'done',
    'partial',      -- part of what was asked for is there, and what is missing is known
    'unavailable',  -- protected, suspended or unknown: reported, not failed
    'failed',
    'interrupted'
);
