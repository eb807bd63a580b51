-- name: outbox_channel
-- Where new rows of the outbox are announced.
SELECT outbox_channel();

-- name: hold_outbox
-- Be the one relay until the transaction ends: false where another is, in this schema.
SELECT pg_try_advisory_xact_lock(3087, hashtext('outbox of ' || current_schema()));

-- name: next_outbox_rows
-- What is to be published next, in the order of publishing; of each topic so many, so that none waits behind another.
-- $1 topics, $2 how many
SELECT o.id, o.topic, o.key, o.value, o.headers
FROM unnest($1::text[]) AS wanted(topic)
CROSS JOIN LATERAL (SELECT * FROM outbox AS o WHERE o.topic = wanted.topic ORDER BY o.id LIMIT $2) AS o
ORDER BY o.id;

-- name: delete_outbox_rows
-- Let go of what was published.
-- $1 ids
DELETE FROM outbox WHERE id = ANY ($1::bigint[]);

-- name: measure_outbox
-- How many rows wait, and the age of the oldest in seconds.
SELECT count(*) AS waiting, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest_s
FROM outbox;
