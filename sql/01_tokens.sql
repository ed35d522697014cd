-- Bearer tokens by the name of the environment variable that holds them, and whether they are fit for use.
-- The secret is in no table, nor anything derived from it.

CREATE TABLE tokens (
    id integer GENERATED ALWAYS AS IDENTITY,
    env_key text NOT NULL,
    status token_status NOT NULL DEFAULT 'active',
    status_reason text,
    status_since timestamptz NOT NULL DEFAULT now(),
    status_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT tokens_pkey PRIMARY KEY (id),
    CONSTRAINT token_env_key_is_unique UNIQUE (env_key),
    CONSTRAINT token_env_key_names_a_bearer CHECK (env_key LIKE 'TWITTER\_BEARER\_%'),
    CONSTRAINT token_out_of_use_has_a_reason CHECK (status = 'active' OR status_reason IS NOT NULL),
    CONSTRAINT token_until_is_for_capped CHECK (status_until IS NULL OR status = 'capped')
);
