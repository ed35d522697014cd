-- Fields, expansions and parameters that X does not know, or does not know any more. All processes leave them out; after
-- `again_at` one call requests them again, and the row goes when X takes them.

ALTER TYPE alert_kind ADD VALUE IF NOT EXISTS 'name_refused';

CREATE TABLE refused_names (
    endpoint text NOT NULL,
    parameter text NOT NULL,           -- such as tweet.fields
    name text NOT NULL,                -- a field or an expansion; empty for the parameter itself
    message text NOT NULL,             -- what X said of it
    refused_at timestamptz NOT NULL DEFAULT now(),  -- first
    again_at timestamptz NOT NULL,

    CONSTRAINT refused_names_pkey PRIMARY KEY (endpoint, parameter, name)
);
