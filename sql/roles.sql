-- The role that a worker's rights hang on. A database administrator runs this once, before the first `counterfoil migrate`,
-- which then applies grants.sql by itself; running it again changes nothing. See docs/security.md.
--
--   psql "$ADMIN_DATABASE_URL" -f sql/roles.sql
--
-- The role cannot log in: the worker's own login role becomes a member of it.
--
--   CREATE ROLE shop_counterfoil LOGIN PASSWORD '…';
--   GRANT counterfoil_worker TO shop_counterfoil;          -- for COUNTERFOIL_DATABASE_URL
--
-- Who migrates owns the tables, and needs nothing but the schema to make them in.
--
--   CREATE ROLE shop_migrator LOGIN PASSWORD '…';
--   GRANT USAGE, CREATE ON SCHEMA public TO shop_migrator; -- for COUNTERFOIL_MIGRATE_DATABASE_URL

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'counterfoil_worker') THEN
    CREATE ROLE counterfoil_worker NOLOGIN;
  END IF;
END $$;

COMMENT ON ROLE counterfoil_worker IS 'counterfoil''s worker: reads, adds, marks and counts; deletes, truncates and defines nothing';
