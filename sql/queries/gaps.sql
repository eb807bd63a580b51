-- name: record_lost_offsets
-- Keep what a log had lost before it was read.
-- $1 cluster id, $2 group, $3 topics, $4 partitions, $5 first offsets, $6 offsets behind the last
INSERT INTO lost_offsets (cluster_id, consumer_group, topic, "partition", first_offset, next_offset)
SELECT $1, $2, topic, "partition", first_offset, next_offset
FROM unnest($3::text[], $4::integer[], $5::bigint[], $6::bigint[])
  AS t(topic, "partition", first_offset, next_offset)
ORDER BY topic, "partition", first_offset;

-- name: find_group_positions
-- Where whole groups stand on a cluster, and for how long they have stood there.
-- $1 cluster id, $2 groups
SELECT consumer_group, topic, "partition", next_offset, clock_timestamp() - updated_at AS idle
FROM stream_positions
WHERE cluster_id = $1 AND consumer_group = ANY ($2::text[])
ORDER BY topic, "partition";

-- name: find_lost_offsets
-- What groups have lost of each topic to retention, and when that was last noticed.
-- $1 cluster id, $2 groups
SELECT topic, sum(next_offset - first_offset)::bigint AS lost, max(noticed_at) AS last_noticed_at
FROM lost_offsets
WHERE cluster_id = $1 AND consumer_group = ANY ($2::text[])
GROUP BY topic
ORDER BY topic;
