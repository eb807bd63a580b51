-- name: hold_shared
-- Take a lock of the ledgers beside others who share it.
-- $1 number
SELECT pg_advisory_xact_lock_shared(3087, $1);

-- name: hold_exclusive
-- Take a lock of the ledgers alone.
-- $1 number
SELECT pg_advisory_xact_lock(3087, $1);
