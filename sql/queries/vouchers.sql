-- name: hold_vouchers
-- Make the vouchers that are missing and hold all of these, in one order, before what is counted of them is written.
-- $1 ids
SELECT hold_vouchers($1::text[]);

-- name: insert_vouchers
-- Add the vouchers that are not there yet; answers the keys that were added.
-- $1 ids, $2 times of creation, $3 businesses, $4 titles, $5 times of expiry, $6 source ids, $7 source offsets, sorted by id
INSERT INTO vouchers (id, created_at, business_id, title, expires_at, source_id, source_offset)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::timestamptz[], $6::integer[], $7::bigint[])
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: replace_vouchers
-- Tell of vouchers that only their scans and the like are known of; else of two contents the one of the earlier time stands,
-- then the smaller one. Answers the keys that were changed.
-- $1 ids, $2 times of creation, $3 businesses, $4 titles, $5 times of expiry, $6 source ids, $7 source offsets, sorted by id
WITH winning AS (
  SELECT s.*
  FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::timestamptz[], $6::integer[], $7::bigint[])
    AS s(id, created_at, business_id, title, expires_at, source_id, source_offset)
  JOIN vouchers AS v ON v.id = s.id
  WHERE v.created_at IS NULL
     OR (s.created_at, coalesce(s.business_id, ''), coalesce(s.title, '') COLLATE "C", coalesce(s.expires_at, '-infinity'))
      < (v.created_at, coalesce(v.business_id, ''), coalesce(v.title, '') COLLATE "C", coalesce(v.expires_at, '-infinity'))
  ORDER BY v.id
  FOR NO KEY UPDATE OF v
)
UPDATE vouchers AS v
SET created_at = w.created_at, business_id = w.business_id, title = w.title, expires_at = w.expires_at,
    source_id = w.source_id, source_offset = w.source_offset, updated_at = now()
FROM winning AS w
WHERE v.id = w.id
  AND (v.created_at IS NULL
       OR (w.created_at, coalesce(w.business_id, ''), coalesce(w.title, '') COLLATE "C", coalesce(w.expires_at, '-infinity'))
        < (v.created_at, coalesce(v.business_id, ''), coalesce(v.title, '') COLLATE "C", coalesce(v.expires_at, '-infinity')))
RETURNING v.id;

-- name: find_new_vouchers
-- Of these vouchers those that are not there, or there with a content that gives way.
-- $1 ids, $2 times of creation, $3 businesses, $4 titles, $5 times of expiry
SELECT s.id
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::timestamptz[])
  AS s(id, created_at, business_id, title, expires_at)
LEFT JOIN vouchers AS v ON v.id = s.id
WHERE v.created_at IS NULL
   OR (s.created_at, coalesce(s.business_id, ''), coalesce(s.title, '') COLLATE "C", coalesce(s.expires_at, '-infinity'))
    < (v.created_at, coalesce(v.business_id, ''), coalesce(v.title, '') COLLATE "C", coalesce(v.expires_at, '-infinity'));

-- name: insert_impressions
-- Add the impressions that are not there yet; answers the keys that were added.
-- $1 impression ids, $2 times, $3 vouchers, $4 source ids, $5 source offsets, sorted by key
INSERT INTO voucher_impressions (impression_id, occurred_at, voucher_id, source_id, source_offset)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::integer[], $5::bigint[])
ON CONFLICT (impression_id) DO NOTHING
RETURNING impression_id;

-- name: replace_impressions
-- Of two contents the one of the earlier time stands, then the smaller one; answers the keys that were replaced.
-- $1 impression ids, $2 times, $3 vouchers, $4 source ids, $5 source offsets
UPDATE voucher_impressions AS i
SET occurred_at = s.occurred_at, voucher_id = s.voucher_id, source_id = s.source_id, source_offset = s.source_offset
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::integer[], $5::bigint[])
  AS s(impression_id, occurred_at, voucher_id, source_id, source_offset)
WHERE i.impression_id = s.impression_id AND (s.occurred_at, s.voucher_id) < (i.occurred_at, i.voucher_id)
RETURNING i.impression_id;

-- name: find_new_impressions
-- Of these impressions those that are not in the ledger, or there with a content that gives way.
-- $1 impression ids, $2 times, $3 vouchers
SELECT s.impression_id
FROM unnest($1::text[], $2::timestamptz[], $3::text[]) AS s(impression_id, occurred_at, voucher_id)
LEFT JOIN voucher_impressions AS i ON i.impression_id = s.impression_id
WHERE i.impression_id IS NULL OR (s.occurred_at, s.voucher_id) < (i.occurred_at, i.voucher_id);

-- name: insert_claims
-- Add the claims of wallets that have no row yet; answers the keys that were added.
-- $1 customers, $2 vouchers, $3 times, $4 metadata, $5 source ids, $6 source offsets, sorted by key
INSERT INTO customer_vouchers (customer_id, voucher_id, claimed_at, metadata, source_id, source_offset)
SELECT customer_id, voucher_id, claimed_at, metadata::jsonb, source_id, source_offset
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::integer[], $6::bigint[])
  AS s(customer_id, voucher_id, claimed_at, metadata, source_id, source_offset)
ON CONFLICT (customer_id, voucher_id) DO NOTHING
RETURNING customer_id, voucher_id;

-- name: replace_claims
-- Claim what was redeemed only; else of two claims the earlier stands, then the smaller one. Answers the keys that changed.
-- $1 customers, $2 vouchers, $3 times, $4 metadata, $5 source ids, $6 source offsets
WITH winning AS (
  SELECT s.customer_id, s.voucher_id, s.claimed_at, s.metadata::jsonb AS metadata, s.source_id, s.source_offset,
         claim_content(c) AS refused, c.source_id AS refused_source_id, c.source_offset AS refused_offset
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::integer[], $6::bigint[])
    AS s(customer_id, voucher_id, claimed_at, metadata, source_id, source_offset)
  JOIN customer_vouchers AS c ON c.customer_id = s.customer_id AND c.voucher_id = s.voucher_id
  WHERE c.claimed_at IS NULL
     OR (s.claimed_at, s.metadata::jsonb::text COLLATE "C") < (c.claimed_at, c.metadata::text COLLATE "C")
), kept AS (
  INSERT INTO refused_voucher_facts (voucher_id, topic, content, source_id, source_offset)
  SELECT voucher_id, 'claim', refused, refused_source_id, refused_offset FROM winning WHERE refused IS NOT NULL
  ON CONFLICT DO NOTHING
)
UPDATE customer_vouchers AS c
SET claimed_at = w.claimed_at, metadata = w.metadata, source_id = w.source_id, source_offset = w.source_offset
FROM winning AS w
WHERE c.customer_id = w.customer_id AND c.voucher_id = w.voucher_id
RETURNING c.customer_id, c.voucher_id;

-- name: find_new_claims
-- Of these claims those whose customer has none of the voucher, or one that gives way.
-- $1 customers, $2 vouchers, $3 times, $4 metadata
SELECT s.customer_id, s.voucher_id
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[]) AS s(customer_id, voucher_id, claimed_at, metadata)
LEFT JOIN customer_vouchers AS c ON c.customer_id = s.customer_id AND c.voucher_id = s.voucher_id
WHERE c.claimed_at IS NULL
   OR (s.claimed_at, s.metadata::jsonb::text COLLATE "C") < (c.claimed_at, c.metadata::text COLLATE "C");

-- name: keep_refused_claims
-- Keep those of these claims whose content is not the one that stands; answers those that were not kept before.
-- $1 customers, $2 vouchers, $3 times, $4 metadata, $5 source ids, $6 source offsets
INSERT INTO refused_voucher_facts (voucher_id, topic, content, source_id, source_offset)
SELECT s.voucher_id, 'claim', content, s.source_id, s.source_offset
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::integer[], $6::bigint[])
  AS s(customer_id, voucher_id, claimed_at, metadata, source_id, source_offset)
JOIN customer_vouchers AS c ON c.customer_id = s.customer_id AND c.voucher_id = s.voucher_id
CROSS JOIN LATERAL claim_content(
  ROW(s.customer_id, s.voucher_id, s.claimed_at, s.metadata, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::customer_vouchers) AS content
WHERE content <> claim_content(c)
ON CONFLICT DO NOTHING
RETURNING voucher_id;

-- name: insert_redemptions
-- Add the attempts that are not there yet; answers the keys that were added.
-- $1 attempt ids, $2 times, $3 vouchers, $4 businesses, $5 customers, $6 whether successful, $7 reasons, $8 devices,
-- $9 locations, $10 metadata, $11 source ids, $12 source offsets, sorted by key
INSERT INTO redemption_attempts (attempt_id, attempted_at, voucher_id, business_id, customer_id, successful, failure_reason,
                                 device_info, location, metadata, source_id, source_offset)
SELECT attempt_id, attempted_at, voucher_id, business_id, customer_id, successful, failure_reason, device_info::jsonb,
       location::jsonb, metadata::jsonb, source_id, source_offset
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::integer[], $12::bigint[])
  AS s(attempt_id, attempted_at, voucher_id, business_id, customer_id, successful, failure_reason, device_info, location,
       metadata, source_id, source_offset)
ON CONFLICT (attempt_id) DO NOTHING
RETURNING attempt_id;

-- name: replace_redemptions
-- Of two contents the one of the earlier time stands, then the smaller one; answers the keys that were replaced.
-- $1 attempt ids, $2 times, $3 vouchers, $4 businesses, $5 customers, $6 whether successful, $7 reasons, $8 devices,
-- $9 locations, $10 metadata, $11 source ids, $12 source offsets
WITH winning AS (
  SELECT s.*, attempt_content(a) AS refused, a.voucher_id AS refused_voucher_id, a.source_id AS refused_source_id,
         a.source_offset AS refused_offset
  FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::text[], $8::text[],
              $9::text[], $10::text[], $11::integer[], $12::bigint[])
    AS s(attempt_id, attempted_at, voucher_id, business_id, customer_id, successful, failure_reason, device_info, location,
         metadata, source_id, source_offset)
  JOIN redemption_attempts AS a ON a.attempt_id = s.attempt_id
  CROSS JOIN LATERAL (
    SELECT ROW(s.attempt_id, s.attempted_at, s.voucher_id, s.business_id, s.customer_id, s.successful, s.failure_reason,
               s.device_info, s.location, s.metadata, NULL, NULL)::redemption_attempts AS attempt
    OFFSET 0
  ) AS told
  WHERE attempt_order(told.attempt) < attempt_order(a) AND NOT stays_refused(told.attempt, a)
  ORDER BY a.attempt_id
  FOR NO KEY UPDATE OF a
), kept AS (
  INSERT INTO refused_voucher_facts (voucher_id, topic, content, source_id, source_offset)
  SELECT refused_voucher_id, 'redemption', refused, refused_source_id, refused_offset FROM winning
  ON CONFLICT DO NOTHING
)
UPDATE redemption_attempts AS a
SET attempted_at = w.attempted_at, voucher_id = w.voucher_id, business_id = w.business_id, customer_id = w.customer_id,
    successful = w.successful, failure_reason = w.failure_reason, device_info = w.device_info::jsonb,
    location = w.location::jsonb, metadata = w.metadata::jsonb, source_id = w.source_id, source_offset = w.source_offset
FROM winning AS w
WHERE a.attempt_id = w.attempt_id
RETURNING a.attempt_id;

-- name: find_new_redemptions
-- Of these attempts those that are not in the ledger, or there with a content that gives way.
-- $1 attempt ids, $2 times, $3 vouchers, $4 businesses, $5 customers, $6 whether successful, $7 reasons, $8 devices,
-- $9 locations, $10 metadata
SELECT s.attempt_id
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::text[], $8::text[],
            $9::text[], $10::text[])
  AS s(attempt_id, attempted_at, voucher_id, business_id, customer_id, successful, failure_reason, device_info, location,
       metadata)
LEFT JOIN redemption_attempts AS a ON a.attempt_id = s.attempt_id
CROSS JOIN LATERAL (
  SELECT ROW(s.attempt_id, s.attempted_at, s.voucher_id, s.business_id, s.customer_id, s.successful, s.failure_reason,
             s.device_info, s.location, s.metadata, NULL, NULL)::redemption_attempts AS attempt
  OFFSET 0
) AS told
WHERE a.attempt_id IS NULL OR (attempt_order(told.attempt) < attempt_order(a) AND NOT stays_refused(told.attempt, a));

-- name: keep_refused_redemptions
-- Keep those of these attempts whose content is not the one that stands; answers those that were not kept before.
-- $1 attempt ids, $2 times, $3 vouchers, $4 businesses, $5 customers, $6 whether successful, $7 reasons, $8 devices,
-- $9 locations, $10 metadata, $11 source ids, $12 source offsets
INSERT INTO refused_voucher_facts (voucher_id, topic, content, source_id, source_offset)
SELECT s.voucher_id, 'redemption', content, s.source_id, s.source_offset
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::integer[], $12::bigint[])
  AS s(attempt_id, attempted_at, voucher_id, business_id, customer_id, successful, failure_reason, device_info, location,
       metadata, source_id, source_offset)
JOIN redemption_attempts AS a ON a.attempt_id = s.attempt_id
CROSS JOIN LATERAL attempt_content(
  ROW(s.attempt_id, s.attempted_at, s.voucher_id, s.business_id, s.customer_id, s.successful, s.failure_reason,
      s.device_info, s.location, s.metadata, s.source_id, s.source_offset)::redemption_attempts) AS content
WHERE content <> attempt_content(a)
ON CONFLICT DO NOTHING
RETURNING voucher_id;

-- name: expire_claims
-- Mark claims of vouchers that have expired; answers how many.
-- $1 how many at most
SELECT expire_claims($1::integer);
