-- name: find_replay_positions
-- Where a replay stands in the given partitions.
-- $1 replay id, $2 topics, $3 partitions
SELECT p.topic, p."partition", p.next_offset, p.last_offset, p.last_record_at
FROM replay_positions AS p
JOIN unnest($2::text[], $3::integer[]) AS wanted(topic, "partition") USING (topic, "partition")
WHERE p.replay_id = $1;

-- name: open_replay_positions
-- Open the accounts of a replay's stretches; those that are open already end where the log ends now.
-- $1 replay id, $2 cluster id, $3 topics, $4 partitions, $5 first offsets, $6 end offsets
INSERT INTO replay_positions AS p (replay_id, cluster_id, topic, "partition", first_offset, next_offset, end_offset)
SELECT $1, $2, topic, "partition", first_offset, first_offset, end_offset
FROM unnest($3::text[], $4::integer[], $5::bigint[], $6::bigint[]) AS t(topic, "partition", first_offset, end_offset)
ORDER BY topic, "partition"
ON CONFLICT (replay_id, topic, "partition")
DO UPDATE SET end_offset = greatest(p.next_offset, excluded.end_offset);

-- name: lock_replay_positions
-- The fence of a replay: hold its positions in a batch's partitions.
-- $1 replay id, $2 topics, $3 partitions
SELECT p.topic, p."partition", p.next_offset
FROM replay_positions AS p
WHERE p.replay_id = $1
  AND (p.topic, p."partition") IN (SELECT * FROM unnest($2::text[], $3::integer[]))
ORDER BY p.topic, p."partition"
FOR UPDATE;

-- name: advance_replay_positions
-- Move a replay's held positions on and write what became of the records in between.
-- $1 replay id, $2 topics, $3 partitions, $4 next offsets, $5 applied, $6 duplicates, $7 dead, $8 passed over,
-- $9 offsets of the last records, or null, $10 their timestamps
UPDATE replay_positions AS p
SET next_offset = b.next_offset,
    applied = p.applied + b.applied,
    duplicates = p.duplicates + b.duplicates,
    dead = p.dead + b.dead,
    passed_over = p.passed_over + b.passed_over,
    last_offset = coalesce(b.last_offset, p.last_offset),
    last_record_at = coalesce(b.last_record_at, p.last_record_at)
FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
            $10::timestamptz[])
  AS b(topic, "partition", next_offset, applied, duplicates, dead, passed_over, last_offset, last_record_at)
WHERE p.replay_id = $1 AND p.topic = b.topic AND p."partition" = b."partition";

-- name: count_replayed
-- Count what a replay put right and what it released, in held positions.
-- $1 replay id, $2 topics, $3 partitions, $4 rows overwritten, $5 dead letters released
UPDATE replay_positions AS p
SET overwritten = p.overwritten + b.overwritten,
    released = p.released + b.released
FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[])
  AS b(topic, "partition", overwritten, released)
WHERE p.replay_id = $1 AND p.topic = b.topic AND p."partition" = b."partition";

-- name: sum_replay
-- What a replay came to, by topic.
-- $1 replay id
SELECT topic, sum(next_offset - first_offset - passed_over)::bigint AS read, sum(applied)::bigint AS applied,
       sum(duplicates)::bigint AS duplicates, sum(dead)::bigint AS dead, sum(passed_over)::bigint AS passed_over,
       sum(overwritten)::bigint AS overwritten, sum(released)::bigint AS released,
       sum(end_offset - next_offset)::bigint AS left
FROM replay_positions WHERE replay_id = $1
GROUP BY topic ORDER BY topic;

-- name: start_replay
-- A replay begins; answers its id.
-- $1 digest, $2 spec as JSON, $3 mode, $4 cluster id
INSERT INTO replays (digest, spec, mode, cluster_id) VALUES ($1, $2, $3, $4) RETURNING id;

-- name: find_unfinished_replay
-- The latest of the unfinished replays of a specification, and whether its process is gone.
-- $1 digest, $2 seconds without a sign of life after which it is
SELECT id, started_at, touched_at, touched_at < now() - make_interval(secs => $2) AS is_gone
FROM replays
WHERE digest = $1 AND finished_at IS NULL
ORDER BY touched_at DESC, id DESC
LIMIT 1;

-- name: resume_replay
-- Go on with a replay whose process is gone; no row where another was first.
-- $1 replay id, $2 when it was last touched, as seen
UPDATE replays SET touched_at = now()
WHERE id = $1 AND touched_at = $2 AND finished_at IS NULL
RETURNING id;

-- name: touch_replay
-- A sign of life.
-- $1 replay id
UPDATE replays SET touched_at = now() WHERE id = $1 AND finished_at IS NULL;

-- name: let_go_of_replay
-- Its process ends in order: whoever comes next goes on with it at once.
-- $1 replay id
UPDATE replays SET touched_at = '-infinity' WHERE id = $1 AND finished_at IS NULL;

-- name: finish_replay
-- A replay has reached its end; those of the same specification that nobody runs any more are done with, too.
-- $1 replay id, $2 summary as JSON, $3 seconds of silence after which a process is gone
UPDATE replays SET finished_at = now(), summary = $2
WHERE id = $1
   OR (finished_at IS NULL AND digest = (SELECT digest FROM replays WHERE id = $1)
       AND touched_at < now() - make_interval(secs => $3));

-- name: hold_open_letters
-- Hold the unresolved parked records of some stretches, in the order in which a retry of all would.
-- $1 cluster id, $2 topics, $3 partitions, $4 first offsets, $5 end offsets
SELECT d.id, d.topic, d."partition", d."offset", d.record_timestamp
FROM dead_letters AS d
JOIN unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[]) AS t(topic, "partition", first_offset, end_offset)
  ON d.topic = t.topic AND d."partition" = t."partition"
 AND d."offset" >= t.first_offset AND d."offset" < t.end_offset
WHERE d.cluster_id = $1 AND d.resolved_at IS NULL
ORDER BY d.id
FOR UPDATE OF d;

-- name: release_letters
-- These parked records went through in a replay.
-- $1 ids
UPDATE dead_letters SET retried_at = now(), resolved_at = now(), resolution = 'replayed' WHERE id = ANY($1::bigint[]);

-- name: find_ledger_bounds
-- What of the ledgers is closed: its rows are gone, and no more are taken.
SELECT ledger, closed_before FROM ledger_bounds;

-- name: find_parked
-- Which of these records are parked, or were and are resolved.
-- $1 cluster id, $2 topics, $3 partitions, $4 offsets, $5 record timestamps
SELECT d.topic, d."partition", d."offset"
FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::timestamptz[]) AS t(topic, "partition", "offset", record_timestamp)
JOIN dead_letters AS d USING (topic, "partition", "offset", record_timestamp)
WHERE d.cluster_id = $1;
