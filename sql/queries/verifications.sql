-- name: list_tables
-- Every table that the caller may read, quoted, its partitions left to it.
SELECT quote_ident(relname) AS name FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
  AND has_table_privilege(oid, 'SELECT')
ORDER BY relname;

-- name: keep_verification
-- Keep what a recount has found.
-- $1 time of its snapshot, $2 seconds, $3 rows checked by table, $4 how many numbers drifted, $5 the same by table, $6 the first of them
INSERT INTO verifications (started_at, seconds, checked, drifted, drifted_in, drift)
VALUES ($1, $2, $3::jsonb, $4, $5::jsonb, $6::jsonb);

-- name: last_verification
-- What the latest recount has found; no row before the first.
SELECT started_at, finished_at, seconds, checked, drifted, drifted_in, drift FROM verifications
ORDER BY started_at DESC, id DESC LIMIT 1;

-- name: forget_verifications
-- Let go of recounts that are older, but for the latest.
-- $1 how long they are kept
DELETE FROM verifications
WHERE started_at < now() - $1::interval AND id <> (SELECT id FROM verifications ORDER BY started_at DESC, id DESC LIMIT 1);

-- name: give_turn_back
-- Let somebody else do what this turn's owner could not.
-- $1 job, $2 how long a stretch is, $3 when it was claimed
UPDATE job_turns SET turn = turn - $2::interval
WHERE job = $1 AND turn = date_bin($2::interval, $3::timestamptz, '2000-01-01 00:00Z');
