-- Two roles, so that neither the program nor `db query` runs as a superuser: twitter_writer owns all that the program
-- creates, twitter_reader may only SELECT. A superuser runs this file in each of the program's databases, in one transaction;
-- run again, it transfers what this superuser has created since. It does not belong to the versions of the schema.

-- Below deadlock_timeout: a process that works on the tables meanwhile is never the one to fail.
SET LOCAL lock_timeout = '500ms';

-- Roles belong to the whole server, and several databases may be prepared at once.
LOCK TABLE pg_authid IN SHARE ROW EXCLUSIVE MODE;

DO $$
DECLARE
    statement text;
BEGIN
    IF to_regrole('twitter_writer') IS NULL THEN
        CREATE ROLE twitter_writer LOGIN;
    END IF;
    IF to_regrole('twitter_reader') IS NULL THEN
        CREATE ROLE twitter_reader LOGIN;
        ALTER ROLE twitter_reader SET default_transaction_read_only = on;
    END IF;

    FOR statement IN
        SELECT format('ALTER %s %s OWNER TO twitter_writer', kind, name)
        FROM (
            SELECT 'SCHEMA', quote_ident(nspname), nspowner, 'pg_namespace'::regclass, oid, oid
            FROM pg_namespace
            UNION ALL
            -- A sequence of a column follows its table.
            SELECT 'TABLE', oid::regclass::text, relowner, 'pg_class'::regclass, oid, relnamespace
            FROM pg_class c
            WHERE relkind IN ('r', 'p', 'v', 'm', 'f')
               OR relkind = 'S' AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype IN ('a', 'i'))
            UNION ALL
            SELECT 'TYPE', oid::regtype::text, typowner, 'pg_type'::regclass, oid, typnamespace
            FROM pg_type t
            WHERE typtype IN ('e', 'd', 'r') OR (SELECT relkind FROM pg_class WHERE oid = t.typrelid) = 'c'
            UNION ALL
            SELECT 'ROUTINE', oid::regprocedure::text, proowner, 'pg_proc'::regclass, oid, pronamespace
            FROM pg_proc
        ) AS owned (kind, name, owner, class, id, namespace)
        WHERE owner = current_user::regrole
          AND namespace NOT IN (
              SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_' OR nspname = 'information_schema'
          )
          AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = class AND objid = id AND deptype = 'e')
    LOOP
        EXECUTE statement;
    END LOOP;
    EXECUTE format('ALTER DATABASE %I OWNER TO twitter_writer', current_database());

    FOR statement IN
        SELECT format('GRANT USAGE ON SCHEMA %s TO twitter_reader', relnamespace::regnamespace)
        FROM pg_class WHERE relowner = 'twitter_writer'::regrole AND relkind IN ('r', 'p', 'v', 'm')
        UNION
        SELECT format('GRANT SELECT ON %s TO twitter_reader', oid::regclass)
        FROM pg_class WHERE relowner = 'twitter_writer'::regrole AND relkind IN ('r', 'p', 'v', 'm')
        UNION
        -- Processes coordinate by advisory locks, which a reader must not hold.
        SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', oid::regprocedure)
        FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ 'advisory|^lo_|^lo(read|write)$'
        UNION
        SELECT format('GRANT EXECUTE ON FUNCTION %s TO twitter_writer', oid::regprocedure)
        FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ 'advisory'
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;

-- For what is created later, also the schema of a restored backup.
ALTER DEFAULT PRIVILEGES FOR ROLE twitter_writer GRANT USAGE ON SCHEMAS TO twitter_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE twitter_writer GRANT SELECT ON TABLES TO twitter_reader;
