-- name: find_promo_codes
-- Which of these promo codes there are.
-- $1 codes
SELECT code FROM promo_codes WHERE code = ANY ($1::text[]);

-- name: lock_promo_codes
-- Hold the rows that will be counted, all of them before the first: a batch may add uses and replace others.
-- $1 codes
SELECT id, code FROM promo_codes WHERE code = ANY ($1::text[]) ORDER BY code FOR NO KEY UPDATE;

-- name: create_promo_codes
-- Make the promo codes that are not there yet, in the same order in every worker.
-- $1 codes
INSERT INTO promo_codes (code)
SELECT code FROM unnest($1::text[]) AS t(code) ORDER BY code COLLATE "C"
ON CONFLICT (code) DO NOTHING;

-- name: insert_promo_uses
-- Add the uses that are not there yet; answers the keys that were added.
-- $1 order ids, $2 promo code ids, $3 times, $4 bonus amounts, $5 base rewards, $6 customer addresses, $7 shop ids,
-- $8 total rewards, $9 source ids, $10 source offsets, sorted by key
INSERT INTO promo_code_uses (order_id, promo_code_id, occurred_at, bonus_amount, base_reward, customer_address, shop_id,
                             total_reward, source_id, source_offset)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::numeric[], $5::numeric[], $6::text[], $7::text[],
                     $8::numeric[], $9::integer[], $10::bigint[])
ON CONFLICT (order_id, promo_code_id) DO NOTHING
RETURNING order_id, promo_code_id;

-- name: replace_promo_uses
-- Of two contents the one of the earlier time stands, then the smaller one; answers the keys that were replaced.
-- $1 order ids, $2 promo code ids, $3 times, $4 bonus amounts, $5 base rewards, $6 customer addresses, $7 shop ids,
-- $8 total rewards, $9 source ids, $10 source offsets
WITH winning AS (
  SELECT u.id, s.*,
         jsonb_build_object(
           'code', (SELECT code FROM promo_codes AS p WHERE p.id = u.promo_code_id), 'occurred_at', u.occurred_at,
           'bonus_amount', u.bonus_amount, 'base_reward', u.base_reward,
           'customer_address', CASE WHEN octet_length(u.customer_address) <= 160 THEN u.customer_address
                                    ELSE left(u.customer_address, 16) || '… ' || md5(u.customer_address) END,
           'shop_id', CASE WHEN octet_length(u.shop_id) <= 160 THEN u.shop_id
                           ELSE left(u.shop_id, 16) || '… ' || md5(u.shop_id) END) AS refused,
         u.source_id AS refused_source_id, u.source_offset AS refused_offset
  FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::numeric[], $5::numeric[], $6::text[], $7::text[],
              $8::numeric[], $9::integer[], $10::bigint[])
    AS s(order_id, promo_code_id, occurred_at, bonus_amount, base_reward, customer_address, shop_id,
         total_reward, source_id, source_offset)
  JOIN promo_code_uses AS u ON u.order_id = s.order_id AND u.promo_code_id = s.promo_code_id
  WHERE (s.occurred_at, s.bonus_amount, s.base_reward, coalesce(s.customer_address, ''), coalesce(s.shop_id, ''))
      < (u.occurred_at, coalesce(u.bonus_amount, 0), coalesce(u.base_reward, 0),
         coalesce(u.customer_address, ''), coalesce(u.shop_id, ''))
  ORDER BY u.order_id, u.promo_code_id
  FOR UPDATE OF u
), kept AS (
  INSERT INTO refused_facts (order_id, topic, content, source_id, source_offset)
  SELECT order_id, 'order.placed', refused, refused_source_id, refused_offset FROM winning
  ON CONFLICT DO NOTHING
)
UPDATE promo_code_uses AS u
SET occurred_at = w.occurred_at, bonus_amount = w.bonus_amount, base_reward = w.base_reward,
    customer_address = w.customer_address, shop_id = w.shop_id, total_reward = w.total_reward,
    source_id = w.source_id, source_offset = w.source_offset
FROM winning AS w
WHERE u.id = w.id
  AND (w.occurred_at, w.bonus_amount, w.base_reward, coalesce(w.customer_address, ''), coalesce(w.shop_id, ''))
    < (u.occurred_at, coalesce(u.bonus_amount, 0), coalesce(u.base_reward, 0),
       coalesce(u.customer_address, ''), coalesce(u.shop_id, ''))
RETURNING u.order_id, u.promo_code_id;

-- name: keep_refused_promo_uses
-- Keep those of these uses whose content is not the one that stands, long texts by their beginning and MD5: an index takes no
-- more. Answers those that were not kept before.
-- $1 order ids, $2 promo code ids, $3 times, $4 bonus amounts, $5 base rewards, $6 customer addresses, $7 shop ids,
-- $8 total rewards, $9 source ids, $10 source offsets
INSERT INTO refused_facts (order_id, topic, content, source_id, source_offset)
SELECT s.order_id, 'order.placed',
       jsonb_build_object(
         'code', p.code, 'occurred_at', s.occurred_at,
         'bonus_amount', s.bonus_amount::numeric(20,6), 'base_reward', s.base_reward::numeric(20,6),
         'customer_address', CASE WHEN octet_length(s.customer_address) <= 160 THEN s.customer_address
                                  ELSE left(s.customer_address, 16) || '… ' || md5(s.customer_address) END,
         'shop_id', CASE WHEN octet_length(s.shop_id) <= 160 THEN s.shop_id
                         ELSE left(s.shop_id, 16) || '… ' || md5(s.shop_id) END),
       s.source_id, s.source_offset
FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::numeric[], $5::numeric[], $6::text[], $7::text[],
            $8::numeric[], $9::integer[], $10::bigint[])
  AS s(order_id, promo_code_id, occurred_at, bonus_amount, base_reward, customer_address, shop_id,
       total_reward, source_id, source_offset)
JOIN promo_code_uses AS u ON u.order_id = s.order_id AND u.promo_code_id = s.promo_code_id
JOIN promo_codes AS p ON p.id = s.promo_code_id
WHERE (s.occurred_at, s.bonus_amount, s.base_reward, coalesce(s.customer_address, ''), coalesce(s.shop_id, ''))
   <> (u.occurred_at, coalesce(u.bonus_amount, 0), coalesce(u.base_reward, 0),
       coalesce(u.customer_address, ''), coalesce(u.shop_id, ''))
ON CONFLICT DO NOTHING
RETURNING order_id;

-- name: find_new_promo_uses
-- Of these uses those that are not in the ledger, or there with a content that gives way: the others change nothing.
-- $1 order ids, $2 promo code ids, $3 times, $4 bonus amounts, $5 base rewards, $6 customer addresses, $7 shop ids
SELECT s.order_id, s.promo_code_id
FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::numeric[], $5::numeric[], $6::text[], $7::text[])
  AS s(order_id, promo_code_id, occurred_at, bonus_amount, base_reward, customer_address, shop_id)
LEFT JOIN promo_code_uses AS u ON u.order_id = s.order_id AND u.promo_code_id = s.promo_code_id
WHERE u.order_id IS NULL
   OR (s.occurred_at, s.bonus_amount, s.base_reward, coalesce(s.customer_address, ''), coalesce(s.shop_id, ''))
    < (u.occurred_at, coalesce(u.bonus_amount, 0), coalesce(u.base_reward, 0),
       coalesce(u.customer_address, ''), coalesce(u.shop_id, ''));

-- name: drift_of_promo_codes
-- Promo codes whose stored counts are not what their ledgers say.
WITH uses AS (
  SELECT promo_code_id AS id, count(*) AS uses, coalesce(sum(bonus_amount), 0) AS bonus
  FROM promo_code_uses WHERE reversed_at IS NULL GROUP BY promo_code_id
), adjustments AS (
  SELECT promo_code_id AS id, sum(delta)::bigint AS delta, sum(bonus_delta) AS bonus
  FROM promo_code_adjustments GROUP BY promo_code_id
), compared AS (
  SELECT p.*, coalesce(u.uses, 0) AS uses, coalesce(u.bonus, 0) AS bonus,
         coalesce(a.delta, 0) AS delta, coalesce(a.bonus, 0) AS bonus_delta
  FROM promo_codes AS p LEFT JOIN uses AS u USING (id) LEFT JOIN adjustments AS a USING (id)
)
SELECT code AS key, counter, stored::text, counted::text
FROM compared, LATERAL (VALUES
  ('times_used', times_used::numeric, (uses + delta)::numeric),
  ('use_count', use_count, uses),
  ('total_bonus_issued', total_bonus_issued, bonus + bonus_delta),
  ('use_bonus', use_bonus, bonus)
) AS c(counter, stored, counted)
WHERE stored <> counted
ORDER BY 1, 2;

-- name: lock_promo_code
-- Hold one promo code's row, so that a fresh statement can recount it.
-- $1 code
SELECT id FROM promo_codes WHERE code = $1 FOR NO KEY UPDATE;

-- name: recount_promo_code
-- Set one held promo code to what its ledgers say.
-- $1 code
UPDATE promo_codes AS p
SET use_count = u.uses, times_used = u.uses + a.delta,
    use_bonus = u.bonus, total_bonus_issued = u.bonus + a.bonus,
    adjusted = p.adjusted OR a.delta <> 0 OR a.bonus <> 0, updated_at = now()
FROM promo_codes AS k,
     LATERAL (SELECT count(*) AS uses, coalesce(sum(bonus_amount), 0) AS bonus
              FROM promo_code_uses WHERE promo_code_id = k.id AND reversed_at IS NULL) AS u,
     LATERAL (SELECT coalesce(sum(delta), 0) AS delta, coalesce(sum(bonus_delta), 0) AS bonus
              FROM promo_code_adjustments WHERE promo_code_id = k.id) AS a
WHERE p.id = k.id AND k.code = $1;

-- name: count_promo_codes
-- How many promo codes there are to verify.
SELECT count(*) FROM promo_codes;

-- name: drift_of_reversed_uses
-- Canceled orders' promo uses that are not marked as such, and so are counted; a key is the order.
SELECT c.order_id AS key, 'reversed_at of ' || p.code AS counter, 'never' AS stored, (c.canceled_at AT TIME ZONE 'UTC')::text AS counted
FROM order_cancellations AS c
JOIN promo_code_uses AS u ON u.order_id = c.order_id
JOIN promo_codes AS p ON p.id = u.promo_code_id
WHERE u.reversed_at IS NULL
ORDER BY 1, 2;

-- name: reverse_uses
-- Mark a canceled order's promo uses.
-- $1 order
UPDATE promo_code_uses AS u SET reversed_at = c.canceled_at
FROM order_cancellations AS c
WHERE c.order_id = $1 AND u.order_id = c.order_id AND u.reversed_at IS NULL;

-- name: count_reversed_uses
-- How many promo uses of canceled orders there are to verify.
SELECT count(*) FROM order_cancellations AS c JOIN promo_code_uses AS u ON u.order_id = c.order_id;
