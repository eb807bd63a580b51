-- name: find_positions
-- Where a group stands in the given partitions of a cluster.
-- $1 cluster id, $2 group, $3 topics, $4 partitions
SELECT p.topic, p."partition", p.next_offset, p.last_offset, p.last_record_at
FROM stream_positions AS p
JOIN unnest($3::text[], $4::integer[]) AS wanted(topic, "partition") USING (topic, "partition")
WHERE p.cluster_id = $1 AND p.consumer_group = $2;

-- name: create_positions
-- Open the accounts of partitions that were never read, where nobody else has.
-- $1 cluster id, $2 group, $3 topics, $4 partitions, $5 first offsets
INSERT INTO stream_positions (cluster_id, consumer_group, topic, "partition", first_offset, next_offset)
SELECT $1, $2, topic, "partition", first_offset, first_offset
FROM unnest($3::text[], $4::integer[], $5::bigint[]) AS t(topic, "partition", first_offset)
ORDER BY topic, "partition"
ON CONFLICT DO NOTHING;

-- name: lock_positions
-- The fence: hold the positions of a batch's partitions, in the same order in every worker.
-- $1 cluster id, $2 group, $3 topics, $4 partitions
SELECT p.topic, p."partition", p.next_offset
FROM stream_positions AS p
WHERE p.cluster_id = $1 AND p.consumer_group = $2
  AND (p.topic, p."partition") IN (SELECT * FROM unnest($3::text[], $4::integer[]))
ORDER BY p.topic, p."partition"
FOR UPDATE;

-- name: advance_positions
-- Move held positions on and write what became of the records in between.
-- $1 cluster id, $2 group, $3 topics, $4 partitions, $5 next offsets, $6 applied, $7 duplicates, $8 dead, $9 skipped,
-- $10 last offsets, $11 their timestamps (both null to keep)
UPDATE stream_positions AS p
SET next_offset = b.next_offset,
    applied = p.applied + b.applied,
    duplicates = p.duplicates + b.duplicates,
    dead = p.dead + b.dead,
    skipped = p.skipped + b.skipped,
    last_offset = coalesce(b.last_offset, p.last_offset),
    last_record_at = coalesce(b.last_record_at, p.last_record_at),
    updated_at = now()
FROM unnest($3::text[], $4::integer[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
            $10::bigint[], $11::timestamptz[])
  AS b(topic, "partition", next_offset, applied, duplicates, dead, skipped, last_offset, last_record_at)
WHERE p.cluster_id = $1 AND p.consumer_group = $2 AND p.topic = b.topic AND p."partition" = b."partition";

-- name: retire_position
-- Keep the closed account of a log that is gone; only where it still stands where we saw it.
-- $1 cluster id, $2 group, $3 topic, $4 partition, $5 next offset as seen, $6 reason
INSERT INTO stream_positions_retired
SELECT p.*, now(), $6
FROM stream_positions AS p
WHERE p.cluster_id = $1 AND p.consumer_group = $2 AND p.topic = $3 AND p."partition" = $4 AND p.next_offset = $5
FOR UPDATE;

-- name: restart_position
-- Open a new account at the beginning of a log that took another's place.
-- $1 cluster id, $2 group, $3 topic, $4 partition, $5 next offset as seen, $6 first offset
UPDATE stream_positions
SET first_offset = $6, next_offset = $6, applied = 0, duplicates = 0, dead = 0, skipped = 0,
    last_offset = NULL, last_record_at = NULL, updated_at = now()
WHERE cluster_id = $1 AND consumer_group = $2 AND topic = $3 AND "partition" = $4 AND next_offset = $5;

-- name: find_sources
-- The numbers of log partitions.
-- $1 cluster id, $2 topics, $3 partitions
SELECT s.id, s.topic, s."partition"
FROM stream_sources AS s
JOIN unnest($2::text[], $3::integer[]) AS wanted(topic, "partition") USING (topic, "partition")
WHERE s.cluster_id = $1;

-- name: create_sources
-- Number log partitions that have no number yet.
-- $1 cluster id, $2 topics, $3 partitions
INSERT INTO stream_sources (cluster_id, topic, "partition")
SELECT $1, topic, "partition" FROM unnest($2::text[], $3::integer[]) AS t(topic, "partition")
ORDER BY topic, "partition"
ON CONFLICT DO NOTHING;
