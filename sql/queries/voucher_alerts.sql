-- name: note_scans_of_window
-- Count the scans of a window by voucher, device and address. Keep what will be usual: of devices and addresses the busiest
-- window of the hour, and of each kind, whose subject is then '', what 19 of 20 stay below; a voucher's own hours are counted
-- already. Answers those with scans enough to be worth an alert, of many those with most, beside the voucher that each scanned
-- most; and for each kind, with no subject, the median, of how many subjects, and how many of these are worth an alert.
-- $1 from, $2 until, $3 kinds, of each: $4 the fewest scans that are noted, $5 the fewest that are worth an alert
-- $6 hour, $7 of how many of a kind the hour is kept, $8 how many of a kind are answered
WITH window_scans AS NOT MATERIALIZED (
  SELECT voucher_id, ip_address AS address,
         left(coalesce(nullif(btrim(device_info ->> 'deviceId'), ''), nullif(btrim(device_info ->> 'device_id'), ''),
                       btrim(device_info ->> 'id')), 255) AS device
  FROM voucher_scans
  WHERE occurred_at >= $1 AND occurred_at < $2
), counts AS MATERIALIZED (  -- scans are only counted here, and not sorted: there may be millions
  SELECT 'voucher' AS kind, voucher_id AS subject, count(*) AS scans
  FROM window_scans WHERE 'voucher' = ANY ($3::text[]) GROUP BY voucher_id
  UNION ALL
  SELECT 'device', device, count(*) FROM window_scans WHERE 'device' = ANY ($3::text[]) AND device <> '' GROUP BY device
  UNION ALL
  SELECT 'address', address, count(*) FROM window_scans WHERE 'address' = ANY ($3::text[]) AND address <> '' GROUP BY address
), busy AS MATERIALIZED (
  SELECT c.*, w.worth, row_number() OVER (PARTITION BY c.kind ORDER BY c.scans DESC, c.subject) AS place
  FROM counts AS c JOIN unnest($3::text[], $4::bigint[], $5::bigint[]) AS w(kind, noted, worth) ON w.kind = c.kind
  WHERE c.scans >= w.noted
), answered AS MATERIALIZED (
  SELECT kind, subject, scans FROM busy WHERE scans >= worth AND place <= $8::bigint
), most_scanned AS (  -- by those that are answered; IS TRUE keeps them in one hash, whatever the planner thinks of their number
  SELECT DISTINCT ON (kind, subject) kind, subject, voucher_id
  FROM (
    SELECT 'device' AS kind, device AS subject, voucher_id, count(*) AS scans
    FROM window_scans
    WHERE EXISTS (SELECT FROM answered WHERE kind = 'device')
      AND (device IN (SELECT subject FROM answered WHERE kind = 'device')) IS TRUE
    GROUP BY device, voucher_id
    UNION ALL
    SELECT 'address', address, voucher_id, count(*)
    FROM window_scans
    WHERE EXISTS (SELECT FROM answered WHERE kind = 'address')
      AND (address IN (SELECT subject FROM answered WHERE kind = 'address')) IS TRUE
    GROUP BY address, voucher_id
  ) AS t
  ORDER BY kind, subject, scans DESC, voucher_id
), peers AS (
  SELECT kind, percentile_disc(0.95) WITHIN GROUP (ORDER BY scans) AS high,
         percentile_disc(0.5) WITHIN GROUP (ORDER BY scans) AS middle, count(*) AS subjects
  FROM counts GROUP BY kind
), noted AS (
  INSERT INTO scan_rates AS r (kind, subject, hour, busiest)
  SELECT kind, subject, $6::timestamptz, scans / extract(epoch FROM $2::timestamptz - $1::timestamptz)::float8
  FROM (
    SELECT kind, subject, scans FROM busy WHERE kind <> 'voucher' AND place <= $7::bigint
    UNION ALL
    SELECT kind, '', high FROM peers
  ) AS t
  ORDER BY kind COLLATE "C", subject COLLATE "C"
  ON CONFLICT (kind, subject, hour) DO UPDATE SET busiest = excluded.busiest WHERE r.busiest < excluded.busiest
)
SELECT a.kind, a.subject, coalesce(m.voucher_id, a.subject) AS voucher_id, a.scans, NULL::bigint AS subjects, NULL::bigint AS worth
FROM answered AS a LEFT JOIN most_scanned AS m ON m.kind = a.kind AND m.subject = a.subject
UNION ALL
SELECT p.kind, NULL, NULL, p.middle, p.subjects, (SELECT count(*) FROM busy AS b WHERE b.kind = p.kind AND b.scans >= b.worth)
FROM peers AS p;

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
