-- name: insert_scans
-- Add the scans that are not there yet; answers the keys that were added.
-- $1 scan ids, $2 times, $3 vouchers, $4 users, $5 types, $6 sources, $7 devices, $8 locations, $9 addresses,
-- $10 user agents, $11 metadata, $12 source ids, $13 source offsets, sorted by key
INSERT INTO voucher_scans (scan_id, occurred_at, voucher_id, user_id, scan_type, scan_source, device_info, location, ip_address,
                           user_agent, metadata, source_id, source_offset)
SELECT scan_id, occurred_at, voucher_id, user_id, scan_type, scan_source, device_info::jsonb, location::jsonb, ip_address,
       user_agent, metadata::jsonb, source_id, source_offset
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::text[], $12::integer[], $13::bigint[])
  AS s(scan_id, occurred_at, voucher_id, user_id, scan_type, scan_source, device_info, location, ip_address, user_agent,
       metadata, source_id, source_offset)
ON CONFLICT (scan_id, occurred_at) DO NOTHING
RETURNING scan_id, occurred_at;

-- name: find_new_scans
-- Of these scans those that are not in the ledger: the first that came stands.
-- $1 scan ids, $2 times in microseconds since 2000: each as one text, separated by U+001F
SELECT s.scan_id, s.occurred_at
FROM (
  SELECT scan_id, timestamptz '2000-01-01Z' + microseconds * interval '1 microsecond' AS occurred_at
  FROM unnest(string_to_array((SELECT $1), E'\x1f'), string_to_array((SELECT $2), E'\x1f')::bigint[]) AS t(scan_id, microseconds)
) AS s
LEFT JOIN voucher_scans AS v ON v.scan_id = s.scan_id AND v.occurred_at = s.occurred_at
WHERE v.scan_id IS NULL;

-- name: scans_closed_before
-- The time up to which the ledger is closed; no row where it is not.
SELECT closed_before FROM ledger_bounds WHERE ledger = 'voucher_scans';

-- name: make_scan_partitions
-- Make the partitions that scans will need; answers those that were missing.
-- $1 how many months ahead
SELECT make_partitions('voucher_scans', $1::integer) AS partition;

-- name: close_scan_partitions
-- Keep the counts of the months that end before a day, and drop their scans; answers the partitions that went.
-- $1 the day
SELECT close_scan_partitions($1::date) AS partition;
