-- name: park_records
-- Keep malformed records with their bytes as they came; a record that is parked already stays as it is.
-- $1 cluster id, $2 topics, $3 partitions, $4 offsets, $5 keys, $6 values, $7 headers as JSON, $8 timestamps, $9 kinds, $10 errors
INSERT INTO dead_letters (cluster_id, topic, "partition", "offset", key, value, headers, record_timestamp, error_kind, error)
SELECT $1, topic, "partition", "offset", key, value, headers::jsonb, record_timestamp, error_kind, error
FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::bytea[], $6::bytea[], $7::text[], $8::timestamptz[],
            $9::text[], $10::text[])
  AS t(topic, "partition", "offset", key, value, headers, record_timestamp, error_kind, error)
ORDER BY topic, "partition", "offset"
ON CONFLICT ON CONSTRAINT dead_letters_identity DO NOTHING;

-- name: list_dead_letters
-- Parked records, newest first.
-- $1 topic or null, $2 kind or null, $3 since or null, $4 with resolved ones, $5 limit, $6 offset
SELECT id, cluster_id, topic, "partition", "offset", key, octet_length(value) AS bytes, record_timestamp, error_kind,
       error, first_seen_at, retried_at, resolved_at
FROM dead_letters
WHERE ($1::text IS NULL OR topic = $1)
  AND ($2::text IS NULL OR error_kind = $2)
  AND ($3::timestamptz IS NULL OR first_seen_at >= $3)
  AND ($4 OR resolved_at IS NULL)
ORDER BY id DESC
LIMIT $5 OFFSET $6;

-- name: list_dead_letters_with_values
-- Parked records, newest first, with the head of each key and value; headers that are longer are null.
-- $1 topic or null, $2 kind or null, $3 since or null, $4 with resolved ones, $5 limit, $6 offset, $7 bytes of each
SELECT id, cluster_id, topic, "partition", "offset", substring(key FOR $7) AS key, octet_length(key) AS key_bytes,
       substring(value FOR $7) AS value, octet_length(value) AS bytes,
       CASE WHEN octet_length(headers::text) <= $7 THEN headers END AS headers, record_timestamp, error_kind, error, first_seen_at, retried_at, resolved_at, resolution
FROM dead_letters
WHERE ($1::text IS NULL OR topic = $1)
  AND ($2::text IS NULL OR error_kind = $2)
  AND ($3::timestamptz IS NULL OR first_seen_at >= $3)
  AND ($4 OR resolved_at IS NULL)
ORDER BY id DESC
LIMIT $5 OFFSET $6;

-- name: show_dead_letter
-- One parked record, whole.
-- $1 id
SELECT id, cluster_id, topic, "partition", "offset", key, value, headers, record_timestamp, error_kind, error,
       first_seen_at, retried_at, resolved_at, resolution
FROM dead_letters WHERE id = $1;

-- name: is_dead_letter
-- 1 where a record is parked under this id.
-- $1 id
SELECT 1 FROM dead_letters WHERE id = $1;

-- name: open_dead_letter_ids
-- The ids of unresolved parked records, oldest first, to retry one by one.
-- $1 topic or null, $2 kind or null, $3 since or null
SELECT id FROM dead_letters
WHERE resolved_at IS NULL
  AND ($1::text IS NULL OR topic = $1)
  AND ($2::text IS NULL OR error_kind = $2)
  AND ($3::timestamptz IS NULL OR first_seen_at >= $3)
ORDER BY id;

-- name: claim_dead_letter
-- Hold one unresolved parked record, so that two retries of it follow one another.
-- $1 id
SELECT id, cluster_id, topic, "partition", "offset", key, value, headers, record_timestamp
FROM dead_letters WHERE id = $1 AND resolved_at IS NULL
FOR UPDATE;

-- name: resolve_dead_letter
-- The record went through: say when and how.
-- $1 id, $2 resolution
UPDATE dead_letters SET retried_at = now(), resolved_at = now(), resolution = $2 WHERE id = $1;

-- name: refuse_dead_letter
-- The record was tried and failed again: say why.
-- $1 id, $2 kind, $3 error
UPDATE dead_letters SET retried_at = now(), error_kind = $2, error = $3 WHERE id = $1 AND resolved_at IS NULL;
