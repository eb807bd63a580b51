-- name: describe_server
-- The server, the role that asks and whether it may use a schema (null where there is none), and the server's time.
-- $1 schema
SELECT current_setting('server_version_num')::integer AS number, current_setting('server_version') AS version,
       current_user AS role, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
       has_schema_privilege(to_regnamespace(quote_ident($1))::oid, 'USAGE') AS may_use_schema, clock_timestamp() AS now;

-- name: find_missing_rights
-- The rights on tables, or on columns of them, that the role has not; tables that are not there are left out.
-- $1 tables, $2 privileges, $3 columns, '' for the whole table
SELECT name, privilege, "column"
FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted(name, privilege, "column")
WHERE NOT CASE WHEN "column" = '' THEN has_table_privilege(to_regclass(name)::oid, privilege)
               ELSE has_column_privilege(to_regclass(name)::oid, "column", privilege) END
ORDER BY name, privilege, "column";

-- name: find_missing_function_rights
-- The functions that the role may not call; those that are not there are left out.
-- $1 functions with the types that they take
SELECT name FROM unnest($1::text[]) AS name
WHERE NOT has_function_privilege(to_regprocedure(name)::oid, 'EXECUTE')
ORDER BY name;

-- name: sum_open_dead_letters
-- Records that wait parked, by topic and kind, and when the newest of each came.
SELECT topic, error_kind, count(*) AS waiting, max(first_seen_at) AS newest_at
FROM dead_letters WHERE resolved_at IS NULL
GROUP BY topic, error_kind
ORDER BY waiting DESC, topic, error_kind;

-- name: find_last_verification
-- When every counter was last recounted, and how many were wrong.
SELECT finished_at, clock_timestamp() - finished_at AS age, drifted
FROM verifications ORDER BY started_at DESC, id DESC LIMIT 1;

-- name: find_missing_months
-- The months, this one and so many ahead, that a ledger has no partition of.
-- $1 ledgers, $2 how many months ahead
SELECT ledger, to_char(month, 'YYYY-MM') AS month, ahead
FROM unnest($1::text[]) AS ledger, generate_series(0, $2::integer) AS ahead,
     LATERAL (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead) AS month) AS of
WHERE to_regclass(ledger) IS NOT NULL AND to_regclass(ledger || '_' || to_char(month, 'YYYY_MM')) IS NULL
ORDER BY ledger, ahead;

-- name: find_late_partitions
-- Ledgers whose default partition holds what is no older than the month before this one.
SELECT 'aff_clicks' AS ledger
WHERE EXISTS (SELECT FROM aff_clicks_default WHERE occurred_at >= date_trunc('month', now(), 'UTC') - interval '1 month')
UNION ALL
SELECT 'voucher_scans'
WHERE EXISTS (SELECT FROM voucher_scans_default WHERE occurred_at >= date_trunc('month', now(), 'UTC') - interval '1 month')
UNION ALL
SELECT 'inventory_events'
WHERE EXISTS (SELECT FROM inventory_events_default WHERE occurred_at >= date_trunc('month', now(), 'UTC') - interval '1 month');

-- name: find_old_partitions
-- Ledgers whose default partition holds anything.
SELECT 'aff_clicks' AS ledger WHERE EXISTS (SELECT FROM aff_clicks_default)
UNION ALL
SELECT 'voucher_scans' WHERE EXISTS (SELECT FROM voucher_scans_default)
UNION ALL
SELECT 'inventory_events' WHERE EXISTS (SELECT FROM inventory_events_default);

-- name: measure_outbox_age
-- What waits to be published, and since when, by default names of topics.
SELECT topic, count(*) AS waiting, clock_timestamp() - min(created_at) AS age
FROM outbox GROUP BY topic ORDER BY topic;

-- name: find_failing_channels
-- Channels that refused something of late, or that have been tried again for a while, with the latest reason.
-- $1 how far back
SELECT DISTINCT ON (channel) channel, count(*) FILTER (WHERE status = 'failed') OVER of_channel AS failed,
       count(*) FILTER (WHERE status <> 'failed') OVER of_channel AS waiting, error
FROM notifications
WHERE created_at >= now() - $1::interval
  AND (status = 'failed' OR status = 'pending' AND attempts > 1 AND error IS NOT NULL)
WINDOW of_channel AS (PARTITION BY channel)
ORDER BY channel, created_at DESC;
