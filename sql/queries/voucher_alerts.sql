-- name: count_scans_of_window
-- The scans of a window by voucher, device and address, of those that have enough to be noted, beside the voucher that each
-- scanned most; and for each kind, with no subject, what 19 of 20 stay below and how many subjects there are.
-- $1 from, $2 until, $3 kinds, $4 of each the fewest scans that are noted
WITH counts AS (
  SELECT t.kind, t.subject, count(*) AS scans, mode() WITHIN GROUP (ORDER BY s.voucher_id) AS voucher_id
  FROM voucher_scans AS s
  CROSS JOIN LATERAL (VALUES
    ('voucher', s.voucher_id),
    ('device', left(coalesce(nullif(btrim(s.device_info ->> 'deviceId'), ''), nullif(btrim(s.device_info ->> 'device_id'), ''),
                             btrim(s.device_info ->> 'id')), 255)),
    ('address', s.ip_address)
  ) AS t(kind, subject)
  WHERE s.occurred_at >= $1 AND s.occurred_at < $2 AND t.kind = ANY ($3::text[]) AND t.subject <> ''
  GROUP BY t.kind, t.subject
)
SELECT c.kind, c.subject, c.voucher_id, c.scans, NULL::bigint AS subjects
FROM counts AS c JOIN unnest($3::text[], $4::bigint[]) AS w(kind, noted) ON w.kind = c.kind
WHERE c.scans >= w.noted
UNION ALL
SELECT kind, NULL, NULL, percentile_disc(0.95) WITHIN GROUP (ORDER BY scans), count(*) FROM counts GROUP BY kind;

-- name: note_scan_rates
-- Keep of each subject the busiest window of the hour; of the busy ones of a kind, whose subject is '', as well.
-- $1 hour, $2 kinds, $3 subjects, $4 scans per second
INSERT INTO scan_rates AS r (kind, subject, hour, busiest)
SELECT kind, subject, $1::timestamptz, busiest FROM unnest($2::text[], $3::text[], $4::float8[]) AS t(kind, subject, busiest)
ORDER BY kind COLLATE "C", subject COLLATE "C"
ON CONFLICT (kind, subject, hour) DO UPDATE SET busiest = excluded.busiest WHERE r.busiest < excluded.busiest;

-- name: find_busiest_hours
-- Of each subject the busiest hour of each of its days (UTC), in scans per second: of vouchers from their roll-up.
-- $1 kinds, $2 subjects, $3 since, $4 until: the hour that has not ended
SELECT t.kind, t.subject, array_agg(d.busiest) AS days
FROM unnest($1::text[], $2::text[]) AS t(kind, subject)
CROSS JOIN LATERAL (
  SELECT max(busiest) AS busiest
  FROM (
    SELECT hour, scans / 3600.0::float8 AS busiest FROM voucher_hourly
    WHERE t.kind = 'voucher' AND voucher_id = t.subject AND hour >= $3 AND hour < $4 AND scans > 0
    UNION ALL
    SELECT hour, busiest FROM scan_rates WHERE kind = t.kind AND subject = t.subject AND hour >= $3 AND hour < $4
  ) AS hours
  GROUP BY (hour AT TIME ZONE 'UTC')::date
) AS d
GROUP BY t.kind, t.subject;

-- name: forget_scan_rates
-- Forget the hours that are compared with no more.
-- $1 before
DELETE FROM scan_rates WHERE hour < $1::timestamptz;

-- name: find_failing_vouchers
-- The vouchers with so many failed attempts in a window, those with most first.
-- $1 from, $2 until, $3 the fewest, $4 how many
SELECT voucher_id, count(*) AS failed
FROM redemption_attempts
WHERE NOT successful AND attempted_at >= $1 AND attempted_at < $2
GROUP BY voucher_id HAVING count(*) >= $3
ORDER BY failed DESC, voucher_id
LIMIT $4;

-- name: find_low_conversion
-- The vouchers that many scan and too few claim, those with most scans first; not those that nobody can claim any more.
-- $1 first day, $2 fewest scans, $3 claims for each scan, $4 how many
SELECT s.voucher_id, s.scans, c.claims
FROM (
  SELECT h.voucher_id, sum(h.scans)::bigint AS scans
  FROM vouchers AS v JOIN voucher_hourly AS h ON h.voucher_id = v.id
  WHERE v.scan_count >= $2::bigint AND (v.expires_at IS NULL OR v.expires_at > now())
    AND h.hour >= $1::date::timestamp AT TIME ZONE 'UTC'
  GROUP BY h.voucher_id HAVING sum(h.scans) >= $2::bigint
) AS s
CROSS JOIN LATERAL (
  SELECT coalesce(sum(claims), 0)::bigint AS claims FROM voucher_daily WHERE voucher_id = s.voucher_id AND day >= $1::date
) AS c
WHERE c.claims < $3::float8 * s.scans
ORDER BY s.scans DESC, s.voucher_id
LIMIT $4;
