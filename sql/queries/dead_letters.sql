-- name: park_records
-- Keep malformed records with their bytes as they came; a record that is parked already stays as it is.
-- $1 cluster id, $2 topics, $3 partitions, $4 offsets, $5 keys, $6 values, $7 headers as JSON, $8 timestamps, $9 kinds, $10 errors,
-- $11 whether copies are to be published
INSERT INTO dead_letters (cluster_id, topic, "partition", "offset", key, value, headers, record_timestamp, error_kind, error, copy_due)
SELECT $1, topic, "partition", "offset", key, value, headers::jsonb, record_timestamp, error_kind, error, $11
FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::bytea[], $6::bytea[], $7::text[], $8::timestamptz[],
            $9::text[], $10::text[])
  AS t(topic, "partition", "offset", key, value, headers, record_timestamp, error_kind, error)
ORDER BY topic, "partition", "offset"
ON CONFLICT ON CONSTRAINT dead_letters_identity DO NOTHING;

-- name: list_dead_letters
-- Parked records, newest first, with the head of each key and value; headers that are longer are null.
-- $1 topic or null, $2 kind or null, $3 since or null, $4 until or null, $5 with resolved ones, $6 limit, $7 offset, $8 bytes of each
SELECT id, cluster_id, topic, "partition", "offset", substring(key FOR $8) AS key, octet_length(key) AS key_bytes,
       substring(value FOR $8) AS value, octet_length(value) AS bytes,
       CASE WHEN octet_length(headers::text) <= $8 THEN headers END AS headers, record_timestamp, error_kind, error, first_seen_at,
       retried_at, resolved_at, resolution, resolved_by, resolved_because, copied_at, copy_error
FROM dead_letters
WHERE ($1::text IS NULL OR topic = $1)
  AND ($2::text IS NULL OR error_kind = $2)
  AND ($3::timestamptz IS NULL OR first_seen_at >= $3)
  AND ($4::timestamptz IS NULL OR first_seen_at < $4)
  AND ($5 OR resolved_at IS NULL)
ORDER BY id DESC
LIMIT $6 OFFSET $7;

-- name: list_dead_letters_in_short
-- Parked records, newest first, with the head of each key and without values.
-- $1 topic or null, $2 kind or null, $3 since or null, $4 until or null, $5 with resolved ones, $6 limit, $7 offset, $8 bytes of a key
SELECT id, cluster_id, topic, "partition", "offset", substring(key FOR $8) AS key, octet_length(key) AS key_bytes,
       octet_length(value) AS bytes, record_timestamp, error_kind, error, first_seen_at, retried_at, resolved_at, resolution,
       resolved_by, resolved_because
FROM dead_letters
WHERE ($1::text IS NULL OR topic = $1)
  AND ($2::text IS NULL OR error_kind = $2)
  AND ($3::timestamptz IS NULL OR first_seen_at >= $3)
  AND ($4::timestamptz IS NULL OR first_seen_at < $4)
  AND ($5 OR resolved_at IS NULL)
ORDER BY id DESC
LIMIT $6 OFFSET $7;

-- name: show_dead_letter
-- One parked record, whole.
-- $1 id
SELECT id, cluster_id, topic, "partition", "offset", key, value, headers, record_timestamp, error_kind, error,
       first_seen_at, retried_at, resolved_at, resolution, resolved_by, resolved_because, copy_due, copied_at, copy_error
FROM dead_letters WHERE id = $1;

-- name: is_dead_letter
-- 1 where a record is parked under this id.
-- $1 id
SELECT 1 FROM dead_letters WHERE id = $1;

-- name: measure_open_dead_letters
-- How many unresolved parked records the filters leave, and the highest id among them.
-- $1 topic or null, $2 kind or null, $3 since or null, $4 until or null, $5 only ids above
SELECT count(*) AS waiting, coalesce(max(id), 0) AS last FROM dead_letters
WHERE resolved_at IS NULL AND id > $5
  AND ($1::text IS NULL OR topic = $1)
  AND ($2::text IS NULL OR error_kind = $2)
  AND ($3::timestamptz IS NULL OR first_seen_at >= $3)
  AND ($4::timestamptz IS NULL OR first_seen_at < $4);

-- name: next_open_dead_letters
-- The next unresolved parked records that the filters leave, oldest first, and how large each is.
-- $1 topic or null, $2 kind or null, $3 since or null, $4 until or null, $5 only ids above, $6 and up to, $7 limit
SELECT id, coalesce(octet_length(value), 0) + coalesce(octet_length(key), 0) AS bytes FROM dead_letters
WHERE resolved_at IS NULL AND id > $5 AND id <= $6
  AND ($1::text IS NULL OR topic = $1)
  AND ($2::text IS NULL OR error_kind = $2)
  AND ($3::timestamptz IS NULL OR first_seen_at >= $3)
  AND ($4::timestamptz IS NULL OR first_seen_at < $4)
ORDER BY id
LIMIT $7;

-- name: claim_dead_letter
-- Hold one unresolved parked record, so that two retries of it follow one another.
-- $1 id
SELECT id, cluster_id, topic, "partition", "offset", key, value, headers, record_timestamp
FROM dead_letters WHERE id = $1 AND resolved_at IS NULL
FOR UPDATE;

-- name: claim_dead_letters
-- Hold some unresolved parked records, in the same order in every process, so that retries of them follow one another.
-- $1 ids
SELECT id, cluster_id, topic, "partition", "offset", key, value, headers, record_timestamp
FROM dead_letters WHERE id = ANY ($1::bigint[]) AND resolved_at IS NULL
ORDER BY id
FOR UPDATE;

-- name: read_dead_letters
-- Some unresolved parked records, whole.
-- $1 ids
SELECT id, cluster_id, topic, "partition", "offset", key, value, headers, record_timestamp
FROM dead_letters WHERE id = ANY ($1::bigint[]) AND resolved_at IS NULL
ORDER BY id;

-- name: resolve_dead_letter
-- The record went through: say when and how.
-- $1 id, $2 resolution
UPDATE dead_letters SET retried_at = now(), resolved_at = now(), resolution = $2 WHERE id = $1;

-- name: resolve_dead_letters
-- The held records went through: say when and how.
-- $1 ids, $2 resolutions
UPDATE dead_letters AS l SET retried_at = now(), resolved_at = now(), resolution = r.resolution
FROM unnest($1::bigint[], $2::text[]) AS r(id, resolution)
WHERE l.id = r.id;

-- name: refuse_dead_letter
-- The record was tried and failed again: say why.
-- $1 id, $2 kind, $3 error
UPDATE dead_letters SET retried_at = now(), error_kind = $2, error = $3 WHERE id = $1 AND resolved_at IS NULL;

-- name: refuse_dead_letters
-- The held records were tried and failed again: say why.
-- $1 ids, $2 kinds, $3 errors
UPDATE dead_letters AS l SET retried_at = now(), error_kind = r.kind, error = r.error
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS r(id, kind, error)
WHERE l.id = r.id AND l.resolved_at IS NULL;

-- name: open_among_dead_letters
-- Those of some parked records that are not resolved.
-- $1 ids
SELECT id FROM dead_letters WHERE id = ANY ($1::bigint[]) AND resolved_at IS NULL ORDER BY id;

-- name: drop_dead_letters
-- Give up unresolved parked records, with who did and why; row and bytes stay. Answers those that were.
-- $1 ids, $2 who, $3 why
WITH held AS (
  SELECT id FROM dead_letters WHERE id = ANY ($1::bigint[]) AND resolved_at IS NULL ORDER BY id FOR UPDATE
)
UPDATE dead_letters AS l SET resolved_at = now(), resolution = 'dropped', resolved_by = $2, resolved_because = $3
FROM held
WHERE l.id = held.id
RETURNING l.id;

-- name: forget_dead_letters
-- Delete records that were resolved long ago; answers how many.
-- $1 days, $2 at most so many
SELECT forget_dead_letters($1, $2);

-- name: list_kinds_of_dead_letters
-- The topics and rules that parked records have, with how many of each wait.
SELECT topic, error_kind, count(*) FILTER (WHERE resolved_at IS NULL) AS waiting, count(*) AS parked
FROM dead_letters
GROUP BY topic, error_kind
ORDER BY topic, error_kind;

-- name: hold_copies
-- Be the one who publishes copies until the transaction ends: false where another does, in this schema.
SELECT pg_try_advisory_xact_lock(3087, hashtext('dead letter copies of ' || current_schema()));

-- name: next_copies
-- The parked records whose copies are due, oldest first, but for some topics; after the first no more than so many bytes.
-- $1 topics to leave out, $2 limit, $3 bytes
SELECT l.id, l.topic, l."partition", l."offset", l.key, l.value, l.headers, l.error_kind, l.error
FROM (
  SELECT id, row_number() OVER (ORDER BY id) AS place,
         sum(coalesce(octet_length(value), 0) + coalesce(octet_length(key), 0)) OVER (ORDER BY id) AS bytes
  FROM (
    SELECT id, key, value FROM dead_letters WHERE copy_due AND topic <> ALL ($1::text[]) ORDER BY id LIMIT $2
  ) AS due
) AS next JOIN dead_letters AS l ON l.id = next.id
WHERE next.place = 1 OR next.bytes <= $3
ORDER BY l.id;

-- name: note_copied
-- Kafka has the copies of these.
-- $1 ids
UPDATE dead_letters SET copy_due = false, copied_at = now(), copy_error = NULL WHERE id = ANY ($1::bigint[]);

-- name: note_not_copied
-- There will be no copies of these: say why.
-- $1 ids, $2 why
UPDATE dead_letters AS l SET copy_due = false, copy_error = r.error
FROM unnest($1::bigint[], $2::text[]) AS r(id, error)
WHERE l.id = r.id;

-- name: count_copies_due
-- How many copies are to be published.
SELECT count(*) FROM dead_letters WHERE copy_due;
