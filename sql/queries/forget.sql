-- name: mark_forgotten
-- A person is forgotten from now on; the caller holds the lock of those who write of people.
-- $1 pseudonym
INSERT INTO forgotten_people (pseudonym) VALUES ($1) ON CONFLICT (pseudonym) DO NOTHING;

-- name: is_forgotten
-- Whether a person is forgotten already.
-- $1 pseudonym
SELECT EXISTS (SELECT FROM forgotten_people WHERE pseudonym = $1);

-- name: addresses_of_person
-- The texts that orders have of a person, who is known by an id: as they came, not as ids are read; long ones cut, where refused.
-- $1 the person's id, $2 blanks that are no part of an id
WITH told AS (
  SELECT customer_address AS address FROM promo_code_uses WHERE customer_address IS NOT NULL
  UNION ALL
  SELECT content ->> 'customer_address' FROM refused_facts WHERE content ->> 'customer_address' IS NOT NULL
)
SELECT DISTINCT address FROM told, LATERAL (SELECT normalize(btrim(address, $2), NFC) AS id) AS r
WHERE id = $1 OR lower(id) = $1 AND $1 ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' OR address = left($1, 16) || '… ' || md5($1);

-- name: count_of_person
-- How many rows name a person, by table; of users and partners those that have a name or an e-mail.
-- $1 the person's id, $2 what orders have instead
SELECT
  (SELECT count(*) FROM voucher_scans WHERE user_id = $1) AS voucher_scans,
  (SELECT count(*) FROM voucher_scanner_days WHERE user_id = $1) AS voucher_scanner_days,
  (SELECT count(*) FROM redemption_attempts WHERE customer_id = $1) AS redemption_attempts,
  (SELECT count(*) FROM customer_vouchers WHERE customer_id = $1) AS customer_vouchers,
  (SELECT count(*) FROM refused_voucher_facts WHERE content ->> 'customer_id' = $1) AS refused_voucher_facts,
  (SELECT count(*) FROM promo_code_uses WHERE customer_address = ANY ($2::text[])) AS promo_code_uses,
  (SELECT count(*) FROM refused_facts WHERE content ->> 'customer_address' = ANY ($2::text[])) AS refused_facts,
  (SELECT count(*) FROM shop_users WHERE id = $1 AND (name IS NOT NULL OR email IS NOT NULL)) AS shop_users,
  (SELECT count(*) FROM partners WHERE id = 'pn_' || $1 AND (name IS NOT NULL OR email IS NOT NULL)) AS partners,
  (SELECT count(*) FROM verifications WHERE EXISTS (
     SELECT FROM jsonb_array_elements(drift) AS d
     WHERE d ->> 'table' IN ('voucher_scanner_days', 'customer_vouchers')
       AND right(d ->> 'counter', length($1) + 1) = ' ' || $1)) AS verifications;

-- name: count_traces_of_person
-- How many alerts and rates tell of devices and whole addresses that a person has scanned with, by table.
-- $1 the person's id
WITH traces AS (
  SELECT DISTINCT t.kind, t.subject
  FROM voucher_scans AS s, LATERAL (VALUES
    ('device', left(coalesce(nullif(btrim(device_info ->> 'deviceId'), ''), nullif(btrim(device_info ->> 'device_id'), ''),
                             btrim(device_info ->> 'id')), 255)),
    ('address', CASE WHEN ip_address !~ '(\.0|::)$' THEN ip_address END)
  ) AS t(kind, subject)
  WHERE s.user_id = $1 AND t.subject <> ''
)
SELECT
  (SELECT count(*) FROM alerts AS a WHERE a.kind = 'scan-rate' AND a.cause IN (SELECT kind || ':' || subject FROM traces)) AS alerts,
  (SELECT count(*) FROM alert_cooldowns AS a
   WHERE a.kind = 'scan-rate' AND a.cause IN (SELECT kind || ':' || subject FROM traces)) AS alert_cooldowns,
  (SELECT count(*) FROM notifications WHERE payload -> 'subject' IN (SELECT jsonb_build_object(kind, subject) FROM traces)) AS notifications,
  (SELECT count(*) FROM outbox WHERE value -> 'subject' IN (SELECT jsonb_build_object(kind, subject) FROM traces)) AS outbox,
  (SELECT count(*) FROM scan_rates WHERE (kind, subject) IN (SELECT kind, subject FROM traces)) AS scan_rates;

-- name: scans_of_person
-- The scans of a person, with the device and the whole address that each was made with.
-- $1 the person's id
SELECT scan_id, occurred_at, voucher_id, location::text AS location,
       left(coalesce(nullif(btrim(device_info ->> 'deviceId'), ''), nullif(btrim(device_info ->> 'device_id'), ''),
                     btrim(device_info ->> 'id')), 255) AS device,
       CASE WHEN ip_address !~ '(\.0|::)$' THEN ip_address END AS address
FROM voucher_scans WHERE user_id = $1
ORDER BY voucher_id, occurred_at, scan_id;

-- name: vouchers_of_person
-- The vouchers that anything tells of a person of, with how many rows do.
-- $1 the person's id
SELECT voucher_id, sum(rows)::bigint AS rows
FROM (
  SELECT voucher_id, 1 AS rows FROM voucher_scanner_days WHERE user_id = $1
  UNION ALL
  SELECT voucher_id, 1 FROM voucher_scans WHERE user_id = $1
  UNION ALL
  SELECT voucher_id, 1 FROM redemption_attempts WHERE customer_id = $1
  UNION ALL
  SELECT voucher_id, 1 FROM customer_vouchers WHERE customer_id = $1
  UNION ALL
  SELECT voucher_id, 1 FROM refused_voucher_facts WHERE content ->> 'customer_id' = $1
) AS found
GROUP BY voucher_id ORDER BY voucher_id COLLATE "C";

-- name: hold_watch
-- Wait for whoever looks at what is scanned of late, and let nobody look until the transaction ends.
SELECT pg_advisory_xact_lock(3087, hashtext(format('turn of %s in %s', 'watch_scan_rates', current_schema())));

-- name: take_scanner_days
-- Take away on which days a person has scanned some vouchers.
-- $1 vouchers, $2 the person's id
DELETE FROM voucher_scanner_days WHERE voucher_id = ANY ($1::text[]) AND user_id = $2 RETURNING voucher_id, day, first_at;

-- name: put_scanner_days
-- Add them under a pseudonym, beside what is told of that already.
-- $1 vouchers, $2 days, $3 times, $4 pseudonym
INSERT INTO voucher_scanner_days AS d (voucher_id, user_id, day, first_at)
SELECT voucher_id, $4, day, first_at
FROM unnest($1::text[], $2::date[], $3::timestamptz[]) AS t(voucher_id, day, first_at) ORDER BY voucher_id, day
ON CONFLICT (voucher_id, user_id, day) DO UPDATE SET first_at = excluded.first_at WHERE d.first_at > excluded.first_at;

-- name: note_moved_days
-- That the days on which somebody has scanned are moved, and need no recounting: `on`, or else an empty text.
-- $1 which of both
SELECT set_config('counterfoil.days_moved', $1, true);

-- name: erase_scans
-- Of scans of a person leave what is counted.
-- $1 scan ids, $2 times, $3 what is left of locations, $4 the person's id, $5 pseudonym
UPDATE voucher_scans AS s
SET user_id = $5, device_info = '{}', location = t.location::jsonb, ip_address = NULL, user_agent = NULL, metadata = '{}'
FROM unnest($1::text[], $2::timestamptz[], $3::text[]) AS t(scan_id, occurred_at, location)
WHERE s.scan_id = t.scan_id AND s.occurred_at = t.occurred_at AND s.user_id = $4;

-- name: erase_redemptions
-- Of a person's attempts to redeem some vouchers leave what is counted.
-- $1 vouchers, $2 the person's id, $3 pseudonym
UPDATE redemption_attempts
SET customer_id = $3, failure_reason = NULL, device_info = '{}', location = NULL, metadata = '{}'
WHERE voucher_id = ANY ($1::text[]) AND customer_id = $2;

-- name: join_wallets
-- Where a pseudonym has vouchers that the person has too, let it have the earlier of both claims.
-- $1 vouchers, $2 the person's id, $3 pseudonym
UPDATE customer_vouchers AS kept
SET claimed_at = least(kept.claimed_at, gone.claimed_at), redeemed_at = least(kept.redeemed_at, gone.redeemed_at),
    status = CASE WHEN 'REDEEMED' IN (kept.status, gone.status) THEN 'REDEEMED'
                  WHEN 'EXPIRED' IN (kept.status, gone.status) THEN 'EXPIRED'
                  ELSE 'CLAIMED' END,
    source_id = CASE WHEN kept.claimed_at <= gone.claimed_at THEN kept.source_id ELSE gone.source_id END,
    source_offset = CASE WHEN kept.claimed_at <= gone.claimed_at THEN kept.source_offset ELSE gone.source_offset END
FROM customer_vouchers AS gone
WHERE kept.voucher_id = ANY ($1::text[]) AND kept.customer_id = $3 AND gone.customer_id = $2 AND gone.voucher_id = kept.voucher_id;

-- name: drop_joined_wallets
-- Take away what of a person's wallet stands under the pseudonym by now.
-- $1 vouchers, $2 the person's id, $3 pseudonym
DELETE FROM customer_vouchers AS gone USING customer_vouchers AS kept
WHERE gone.voucher_id = ANY ($1::text[]) AND kept.customer_id = $3 AND gone.customer_id = $2 AND gone.voucher_id = kept.voucher_id;

-- name: erase_wallet
-- Of a person's wallet leave what is counted.
-- $1 vouchers, $2 the person's id, $3 pseudonym
UPDATE customer_vouchers
SET customer_id = $3, metadata = '{}', notification_preferences = '{}', last_viewed_at = NULL
WHERE voucher_id = ANY ($1::text[]) AND customer_id = $2;

-- name: erase_refused_voucher_facts
-- Of what does not stand of a person leave what is counted, where that is not what stands by now.
-- $1 vouchers, $2 the person's id, $3 pseudonym
WITH gone AS (
  DELETE FROM refused_voucher_facts WHERE voucher_id = ANY ($1::text[]) AND content ->> 'customer_id' = $2
  RETURNING voucher_id, topic, content, source_id, source_offset
), left_of_it AS (
  SELECT voucher_id, topic, source_id, source_offset,
         content || jsonb_build_object('customer_id', $3::text, 'metadata', jsonb_build_object())
                 || CASE topic WHEN 'redemption' THEN '{"failure_reason": null, "device_info": {}, "location": null}' ELSE '{}' END::jsonb
           AS content
  FROM gone
), kept AS (
  INSERT INTO refused_voucher_facts (voucher_id, topic, content, source_id, source_offset)
  SELECT DISTINCT ON (l.voucher_id, l.topic, l.content) l.voucher_id, l.topic, l.content, l.source_id, l.source_offset
  FROM left_of_it AS l
  WHERE NOT EXISTS (SELECT FROM customer_vouchers AS c
                    WHERE l.topic = 'claim' AND c.customer_id = $3 AND c.voucher_id = l.voucher_id AND claim_content(c) = l.content)
    AND NOT EXISTS (SELECT FROM redemption_attempts AS a
                    WHERE l.topic = 'redemption' AND a.attempt_id = l.content ->> 'attempt_id' AND attempt_content(a) = l.content)
  ORDER BY l.voucher_id, l.topic, l.content, l.source_id, l.source_offset
  ON CONFLICT DO NOTHING
)
SELECT count(*) FROM gone;

-- name: erase_promo_uses
-- Replace the address of a customer.
-- $1 addresses, $2 pseudonym
UPDATE promo_code_uses SET customer_address = $2 WHERE customer_address = ANY ($1::text[]);

-- name: erase_refused_facts
-- Replace the address of a customer in what does not stand.
-- $1 addresses, $2 pseudonym
WITH gone AS (
  DELETE FROM refused_facts WHERE content ->> 'customer_address' = ANY ($1::text[])
  RETURNING order_id, topic, content, source_id, source_offset
), kept AS (
  INSERT INTO refused_facts (order_id, topic, content, source_id, source_offset)
  SELECT order_id, topic, content || jsonb_build_object('customer_address', $2::text), source_id, source_offset FROM gone
  ON CONFLICT DO NOTHING
)
SELECT count(*) FROM gone;

-- name: erase_user
-- Empty what a user is called.
-- $1 the person's id
UPDATE shop_users SET name = NULL, email = NULL WHERE id = $1 AND (name IS NOT NULL OR email IS NOT NULL);

-- name: erase_partner
-- Empty what the user's own partner is called.
-- $1 the person's id
UPDATE partners SET name = NULL, email = NULL WHERE id = 'pn_' || $1 AND (name IS NOT NULL OR email IS NOT NULL);

-- name: is_partner
-- Whether a person is known as a user whose links may earn something.
-- $1 the person's id
SELECT EXISTS (SELECT FROM shop_users WHERE id = $1) OR EXISTS (SELECT FROM links WHERE user_id = $1)
    OR EXISTS (SELECT FROM partner_users WHERE user_id = $1);

-- name: erase_verifications
-- Replace a person's id in what verifying has found wrong.
-- $1 the person's id, $2 pseudonym
UPDATE verifications AS v
SET drift = named.drift
FROM (
  SELECT id, jsonb_agg(CASE WHEN is_named THEN d || jsonb_build_object('counter', left(d ->> 'counter', -length($1)) || $2) ELSE d END
                       ORDER BY place) AS drift
  FROM verifications AS k, jsonb_array_elements(k.drift) WITH ORDINALITY AS t(d, place), LATERAL (
    SELECT d ->> 'table' IN ('voucher_scanner_days', 'customer_vouchers')
           AND right(d ->> 'counter', length($1) + 1) = ' ' || $1 AS is_named) AS n
  GROUP BY id HAVING bool_or(is_named)
) AS named
WHERE v.id = named.id;

-- name: erase_alerts
-- Replace devices and addresses in alerts.
-- $1 kinds, $2 subjects, $3 what replaces each
UPDATE alerts AS a
SET cause = t.kind || ':' || t.instead, payload = a.payload || jsonb_build_object('subject', jsonb_build_object(t.kind, t.instead))
FROM unnest($1::text[], $2::text[], $3::text[]) AS t(kind, subject, instead)
WHERE a.kind = 'scan-rate' AND a.cause = t.kind || ':' || t.subject;

-- name: erase_notifications
-- Replace devices and addresses in what is told of alerts.
-- $1 kinds, $2 subjects, $3 what replaces each
UPDATE notifications AS n SET payload = n.payload || jsonb_build_object('subject', jsonb_build_object(t.kind, t.instead))
FROM unnest($1::text[], $2::text[], $3::text[]) AS t(kind, subject, instead)
WHERE n.payload -> 'subject' = jsonb_build_object(t.kind, t.subject);

-- name: erase_outbox
-- Replace devices and addresses in alerts that are not published yet.
-- $1 kinds, $2 subjects, $3 what replaces each
UPDATE outbox AS o SET value = o.value || jsonb_build_object('subject', jsonb_build_object(t.kind, t.instead))
FROM unnest($1::text[], $2::text[], $3::text[]) AS t(kind, subject, instead)
WHERE o.value -> 'subject' = jsonb_build_object(t.kind, t.subject);

-- name: erase_cooldowns_of
-- Forget when devices and addresses were told of last.
-- $1 kinds, $2 subjects
DELETE FROM alert_cooldowns AS c USING unnest($1::text[], $2::text[]) AS t(kind, subject)
WHERE c.kind = 'scan-rate' AND c.cause = t.kind || ':' || t.subject;

-- name: erase_rates_of
-- Forget what is usual of devices and addresses.
-- $1 kinds, $2 subjects
DELETE FROM scan_rates AS r USING unnest($1::text[], $2::text[]) AS t(kind, subject)
WHERE r.kind = t.kind AND r.subject = t.subject;

-- name: parked_after
-- Parked records that still have bytes, in order.
-- $1 the id to go on after, $2 topic or null, $3 limit
SELECT id, topic, key, value, headers::text AS headers, error
FROM dead_letters
WHERE id > $1 AND ($2::text IS NULL OR topic = $2) AND (key IS NOT NULL OR value IS NOT NULL OR headers <> '[]' OR error <> 'erased')
ORDER BY id LIMIT $3;

-- name: erase_dead_letters
-- Erase the bytes of parked records; nobody retries them, or publishes a copy.
-- $1 ids
UPDATE dead_letters
SET key = NULL, value = NULL, headers = '[]', error = 'erased', copy_due = false,
    copy_error = CASE WHEN copy_due THEN 'erased' ELSE copy_error END, resolution = coalesce(resolution, 'erased'),
    resolved_at = coalesce(resolved_at, now())
WHERE id = ANY ($1::bigint[]);

-- name: visitor_of_click
-- The visitors who have made the clicks of an id.
-- $1 click id
SELECT DISTINCT visitor FROM aff_clicks WHERE click_id = $1;

-- name: clicks_of_visitor
-- How many clicks a visitor has made on each day.
-- $1 visitor
SELECT day, count(*) AS clicks FROM aff_clicks WHERE visitor = $1 GROUP BY day ORDER BY day;

-- name: click_ids_of_visitor
-- The ids of a visitor's clicks.
-- $1 visitor
SELECT DISTINCT click_id FROM aff_clicks WHERE visitor = $1;

-- name: number_forgotten_visitor
-- The number that a visitor is given instead; one that is asked for again is the same.
-- $1 digest of the number before, $2 a random number
INSERT INTO forgotten_visitors AS v (visitor, digest) VALUES ($2, $1)
ON CONFLICT (digest) DO UPDATE SET digest = v.digest
RETURNING visitor;

-- name: is_forgotten_visitor
-- Whether a visitor's number is one that was given instead of another.
-- $1 visitor
SELECT EXISTS (SELECT FROM forgotten_visitors WHERE visitor = $1);

-- name: unfinished_visitor
-- The number that a visitor had before, where some of the clicks still have it.
-- $1 the number instead, $2 the key of digests
SELECT c.visitor FROM forgotten_visitors AS f JOIN aff_clicks AS c ON sha256($2::bytea || int8send(c.visitor)) = f.digest
WHERE f.visitor = $1 LIMIT 1;

-- name: erase_clicks
-- Of a visitor's clicks of some days leave what is counted.
-- $1 visitor, $2 days, $3 the number instead
UPDATE aff_clicks
SET visitor = $3, ip_address = NULL, user_agent = NULL, referrer = NULL, landing_page = NULL
WHERE visitor = $1 AND day = ANY ($2::date[]);

-- name: finish_forgotten_visitor
-- Nothing leads from the number before to the one instead any more.
-- $1 the number instead
UPDATE forgotten_visitors SET digest = NULL WHERE visitor = $1;
