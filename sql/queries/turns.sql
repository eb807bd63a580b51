-- name: claim_turn
-- Take a job's turn of this stretch of time, to the end of the transaction; answers the time by the database's clock, or no
-- row where somebody has it or had it.
-- $1 job, $2 how long a stretch is
INSERT INTO job_turns AS t (job, turn)
SELECT $1::text, date_bin($2::interval, now(), '2000-01-01 00:00Z')
WHERE pg_try_advisory_xact_lock(3087, hashtext(format('turn of %s in %s', $1::text, current_schema())))
ON CONFLICT (job) DO UPDATE SET turn = excluded.turn WHERE t.turn < excluded.turn
RETURNING now();
