-- name: plan_by_index
-- Until it is taken back, statements of this transaction look their rows up one by one; answers what was set before.
SELECT ARRAY[current_setting('enable_seqscan'), current_setting('enable_bitmapscan'), current_setting('enable_hashjoin'),
             current_setting('enable_mergejoin'), current_setting('jit')],
       set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true);

-- name: plan_as_before
-- Take back how statements of this transaction look rows up.
-- $1 what was set before
SELECT set_config('enable_seqscan', ($1::text[])[1], true), set_config('enable_bitmapscan', ($1::text[])[2], true),
       set_config('enable_hashjoin', ($1::text[])[3], true), set_config('enable_mergejoin', ($1::text[])[4], true),
       set_config('jit', ($1::text[])[5], true);

-- name: find_different_coupon_usages
-- Of these usages those that are missing or differ, or whose reversal is not their order's cancellation; stands tells whether
-- the usage's own content is to stand.
-- $1 order ids, $2 codes, $3 times in microseconds since 2000, $4 source ids, $5 source offsets: each as one text, separated by
-- U+001F
SELECT s.n, u.order_id IS NULL AS missing, u.order_id, u.code, u.occurred_at, u.reversed_at, c.canceled_at AS wanted_reversed_at,
       s.occurred_at < u.occurred_at OR (u.source_id = s.source_id AND u.source_offset = s.source_offset) IS TRUE AS stands
FROM (
  SELECT order_id, code, timestamptz '2000-01-01Z' + microseconds * interval '1 microsecond' AS occurred_at, source_id,
         source_offset, n
  FROM unnest(string_to_array($1, E'\x1f'), string_to_array($2, E'\x1f'), string_to_array($3, E'\x1f')::bigint[],
              string_to_array($4, E'\x1f')::integer[], string_to_array($5, E'\x1f')::bigint[]) WITH ORDINALITY
    AS t(order_id, code, microseconds, source_id, source_offset, n)
) AS s
LEFT JOIN affiliate_coupon_usages AS u ON u.order_id = s.order_id AND u.code = s.code
LEFT JOIN order_cancellations AS c ON c.order_id = s.order_id
WHERE u.order_id IS NULL
   OR s.occurred_at < u.occurred_at
   OR (s.occurred_at <> u.occurred_at AND u.source_id = s.source_id AND u.source_offset = s.source_offset)
   OR u.reversed_at IS DISTINCT FROM c.canceled_at;

-- name: overwrite_coupon_usages
-- Let these usages stand where what stands is wrong, and be reversed where their order is canceled. The caller shares the lock of
-- the orders.
-- $1 order ids, $2 codes, $3 times, $4 source ids, $5 source offsets
WITH wrong AS (
  SELECT s.*, c.canceled_at,
         s.occurred_at < u.occurred_at OR (u.source_id = s.source_id AND u.source_offset = s.source_offset) IS TRUE AS stands
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::integer[], $5::bigint[])
    AS s(order_id, code, occurred_at, source_id, source_offset)
  JOIN affiliate_coupon_usages AS u ON u.order_id = s.order_id AND u.code = s.code
  LEFT JOIN order_cancellations AS c ON c.order_id = s.order_id
  WHERE s.occurred_at < u.occurred_at
     OR (s.occurred_at <> u.occurred_at AND u.source_id = s.source_id AND u.source_offset = s.source_offset)
     OR u.reversed_at IS DISTINCT FROM c.canceled_at
  ORDER BY u.order_id, u.code
  FOR NO KEY UPDATE OF u
)
UPDATE affiliate_coupon_usages AS u
SET occurred_at = CASE WHEN w.stands THEN w.occurred_at ELSE u.occurred_at END, reversed_at = w.canceled_at,
    source_id = CASE WHEN w.stands THEN w.source_id ELSE u.source_id END,
    source_offset = CASE WHEN w.stands THEN w.source_offset ELSE u.source_offset END
FROM wrong AS w
WHERE u.order_id = w.order_id AND u.code = w.code
RETURNING u.order_id, u.code;

-- name: find_different_promo_uses
-- Of these uses those that are missing or differ, or whose reversal is not their order's cancellation; stands tells whether the
-- use's own content is to stand.
-- $1 order ids, $2 codes, $3 times, $4 bonus amounts, $5 base rewards, $6 customer addresses, $7 shop ids, $8 total rewards,
-- $9 source ids, $10 source offsets
SELECT s.n, u.id IS NULL AS missing, u.order_id, p.code, u.occurred_at, u.bonus_amount, u.base_reward, u.customer_address,
       u.shop_id, u.total_reward, u.reversed_at, c.canceled_at AS wanted_reversed_at,
       (u.source_id = s.source_id AND u.source_offset = s.source_offset) IS TRUE
       OR (s.occurred_at, s.bonus_amount, s.base_reward, coalesce(s.customer_address, ''), coalesce(s.shop_id, ''))
            < (u.occurred_at, coalesce(u.bonus_amount, 0), coalesce(u.base_reward, 0), coalesce(u.customer_address, ''),
               coalesce(u.shop_id, '')) AS stands
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::numeric[], $6::text[], $7::text[], $8::numeric[],
            $9::integer[], $10::bigint[]) WITH ORDINALITY
  AS s(order_id, code, occurred_at, bonus_amount, base_reward, customer_address, shop_id, total_reward, source_id,
       source_offset, n)
LEFT JOIN promo_codes AS p ON p.code = s.code
LEFT JOIN promo_code_uses AS u ON u.order_id = s.order_id AND u.promo_code_id = p.id
LEFT JOIN order_cancellations AS c ON c.order_id = s.order_id
WHERE u.id IS NULL
   OR u.reversed_at IS DISTINCT FROM c.canceled_at
   OR ((u.occurred_at, u.bonus_amount, u.base_reward, u.customer_address, u.shop_id, u.total_reward)
      IS DISTINCT FROM (s.occurred_at, s.bonus_amount, s.base_reward, s.customer_address, s.shop_id, s.total_reward)
       AND ((u.source_id = s.source_id AND u.source_offset = s.source_offset)
            OR (s.occurred_at, s.bonus_amount, s.base_reward, coalesce(s.customer_address, ''), coalesce(s.shop_id, ''))
                 < (u.occurred_at, coalesce(u.bonus_amount, 0), coalesce(u.base_reward, 0), coalesce(u.customer_address, ''),
                    coalesce(u.shop_id, ''))));

-- name: overwrite_promo_uses
-- Let these uses stand where what stands is wrong, and be reversed where their order is canceled. The caller shares the lock of
-- the orders.
-- $1 order ids, $2 codes, $3 times, $4 bonus amounts, $5 base rewards, $6 customer addresses, $7 shop ids, $8 total rewards,
-- $9 source ids, $10 source offsets
WITH wrong AS (
  SELECT u.id, s.*, c.canceled_at,
         (u.source_id = s.source_id AND u.source_offset = s.source_offset) IS TRUE
         OR (s.occurred_at, s.bonus_amount, s.base_reward, coalesce(s.customer_address, ''), coalesce(s.shop_id, ''))
              < (u.occurred_at, coalesce(u.bonus_amount, 0), coalesce(u.base_reward, 0), coalesce(u.customer_address, ''),
                 coalesce(u.shop_id, '')) AS stands
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::numeric[], $6::text[], $7::text[], $8::numeric[],
              $9::integer[], $10::bigint[])
    AS s(order_id, code, occurred_at, bonus_amount, base_reward, customer_address, shop_id, total_reward, source_id, source_offset)
  JOIN promo_codes AS p ON p.code = s.code
  JOIN promo_code_uses AS u ON u.order_id = s.order_id AND u.promo_code_id = p.id
  LEFT JOIN order_cancellations AS c ON c.order_id = s.order_id
  WHERE u.reversed_at IS DISTINCT FROM c.canceled_at
     OR ((u.occurred_at, u.bonus_amount, u.base_reward, u.customer_address, u.shop_id, u.total_reward)
        IS DISTINCT FROM (s.occurred_at, s.bonus_amount, s.base_reward, s.customer_address, s.shop_id, s.total_reward)
         AND ((u.source_id = s.source_id AND u.source_offset = s.source_offset)
              OR (s.occurred_at, s.bonus_amount, s.base_reward, coalesce(s.customer_address, ''), coalesce(s.shop_id, ''))
                   < (u.occurred_at, coalesce(u.bonus_amount, 0), coalesce(u.base_reward, 0), coalesce(u.customer_address, ''),
                      coalesce(u.shop_id, ''))))
  ORDER BY u.order_id, u.promo_code_id
  FOR NO KEY UPDATE OF u
)
UPDATE promo_code_uses AS u
SET occurred_at = CASE WHEN w.stands THEN w.occurred_at ELSE u.occurred_at END,
    bonus_amount = CASE WHEN w.stands THEN w.bonus_amount ELSE u.bonus_amount END,
    base_reward = CASE WHEN w.stands THEN w.base_reward ELSE u.base_reward END,
    customer_address = CASE WHEN w.stands THEN w.customer_address ELSE u.customer_address END,
    shop_id = CASE WHEN w.stands THEN w.shop_id ELSE u.shop_id END,
    total_reward = CASE WHEN w.stands THEN w.total_reward ELSE u.total_reward END,
    source_id = CASE WHEN w.stands THEN w.source_id ELSE u.source_id END,
    source_offset = CASE WHEN w.stands THEN w.source_offset ELSE u.source_offset END,
    reversed_at = w.canceled_at
FROM wrong AS w
WHERE u.id = w.id
RETURNING u.order_id, u.promo_code_id;

-- name: find_different_order_cancellations
-- Of these cancellations those that are missing or differ.
-- $1 order ids, $2 times, $3 reasons, $4 source ids, $5 source offsets
SELECT s.n, c.order_id IS NULL AS missing, c.order_id, c.canceled_at, c.reason
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::integer[], $5::bigint[]) WITH ORDINALITY
  AS s(order_id, canceled_at, reason, source_id, source_offset, n)
LEFT JOIN order_cancellations AS c ON c.order_id = s.order_id
WHERE c.order_id IS NULL
   OR ((c.canceled_at, c.reason) IS DISTINCT FROM (s.canceled_at, s.reason)
       AND ((c.source_id = s.source_id AND c.source_offset = s.source_offset)
            OR (s.canceled_at, coalesce(s.reason, '')) < (c.canceled_at, coalesce(c.reason, ''))));

-- name: overwrite_order_cancellations
-- Let these cancellations stand where what stands is wrong.
-- $1 order ids, $2 times, $3 reasons, $4 source ids, $5 source offsets
WITH wrong AS (
  SELECT s.*
  FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::integer[], $5::bigint[])
    AS s(order_id, canceled_at, reason, source_id, source_offset)
  JOIN order_cancellations AS c ON c.order_id = s.order_id
  WHERE (c.canceled_at, c.reason) IS DISTINCT FROM (s.canceled_at, s.reason)
    AND ((c.source_id = s.source_id AND c.source_offset = s.source_offset)
         OR (s.canceled_at, coalesce(s.reason, '')) < (c.canceled_at, coalesce(c.reason, '')))
  ORDER BY c.order_id
  FOR NO KEY UPDATE OF c
)
UPDATE order_cancellations AS c
SET canceled_at = w.canceled_at, reason = w.reason, source_id = w.source_id, source_offset = w.source_offset
FROM wrong AS w
WHERE c.order_id = w.order_id
RETURNING c.order_id;

-- name: find_usage_reversals
-- The usages of canceled orders whose reversal is not their order's cancellation.
-- $1 order ids
SELECT u.order_id, u.code, c.canceled_at
FROM unnest($1::text[]) AS s(order_id)
JOIN order_cancellations AS c ON c.order_id = s.order_id
JOIN affiliate_coupon_usages AS u ON u.order_id = s.order_id
WHERE u.reversed_at IS DISTINCT FROM c.canceled_at;

-- name: find_use_reversals
-- The promo uses of canceled orders whose reversal is not their order's cancellation.
-- $1 order ids
SELECT u.order_id, p.code, c.canceled_at
FROM unnest($1::text[]) AS s(order_id)
JOIN order_cancellations AS c ON c.order_id = s.order_id
JOIN promo_code_uses AS u ON u.order_id = s.order_id
JOIN promo_codes AS p ON p.id = u.promo_code_id
WHERE u.reversed_at IS DISTINCT FROM c.canceled_at;

-- name: find_different_usage_reversals
-- Of these usages those whose reversal is another.
-- $1 order ids, $2 codes, $3 times of cancellation, $4 source ids, $5 source offsets
SELECT s.n, false AS missing, u.order_id, u.code, u.reversed_at
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::integer[], $5::bigint[]) WITH ORDINALITY
  AS s(order_id, code, reversed_at, source_id, source_offset, n)
JOIN affiliate_coupon_usages AS u ON u.order_id = s.order_id AND u.code = s.code
WHERE u.reversed_at IS DISTINCT FROM s.reversed_at;

-- name: overwrite_usage_reversals
-- Let these usages be reversed as their order's cancellation says. The caller shares the lock of the orders.
-- $1 order ids, $2 codes, $3 times of cancellation, $4 source ids, $5 source offsets
WITH wrong AS (
  SELECT u.order_id, u.code, c.canceled_at
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::integer[], $5::bigint[])
    AS s(order_id, code, reversed_at, source_id, source_offset)
  JOIN affiliate_coupon_usages AS u ON u.order_id = s.order_id AND u.code = s.code
  LEFT JOIN order_cancellations AS c ON c.order_id = s.order_id
  WHERE u.reversed_at IS DISTINCT FROM c.canceled_at
  ORDER BY u.order_id, u.code
  FOR NO KEY UPDATE OF u
)
UPDATE affiliate_coupon_usages AS u
SET reversed_at = w.canceled_at
FROM wrong AS w
WHERE u.order_id = w.order_id AND u.code = w.code
RETURNING u.order_id, u.code;

-- name: find_different_use_reversals
-- Of these promo uses those whose reversal is another.
-- $1 order ids, $2 codes, $3 times of cancellation, $4 source ids, $5 source offsets
SELECT s.n, false AS missing, u.order_id, p.code, u.reversed_at
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::integer[], $5::bigint[]) WITH ORDINALITY
  AS s(order_id, code, reversed_at, source_id, source_offset, n)
JOIN promo_codes AS p ON p.code = s.code
JOIN promo_code_uses AS u ON u.order_id = s.order_id AND u.promo_code_id = p.id
WHERE u.reversed_at IS DISTINCT FROM s.reversed_at;

-- name: overwrite_use_reversals
-- Let these promo uses be reversed as their order's cancellation says. The caller shares the lock of the orders.
-- $1 order ids, $2 codes, $3 times of cancellation, $4 source ids, $5 source offsets
WITH wrong AS (
  SELECT u.id, c.canceled_at
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::integer[], $5::bigint[])
    AS s(order_id, code, reversed_at, source_id, source_offset)
  JOIN promo_codes AS p ON p.code = s.code
  JOIN promo_code_uses AS u ON u.order_id = s.order_id AND u.promo_code_id = p.id
  LEFT JOIN order_cancellations AS c ON c.order_id = s.order_id
  WHERE u.reversed_at IS DISTINCT FROM c.canceled_at
  ORDER BY u.order_id, u.promo_code_id
  FOR NO KEY UPDATE OF u
)
UPDATE promo_code_uses AS u
SET reversed_at = w.canceled_at
FROM wrong AS w
WHERE u.id = w.id
RETURNING u.order_id, u.promo_code_id;

-- name: find_different_order_refunds
-- Of these refunds those that are missing or differ.
-- $1 order ids, $2 refund ids, $3 times, $4 amounts, $5 currencies or nulls, $6 source ids, $7 source offsets
SELECT s.n, r.order_id IS NULL AS missing, r.order_id, r.refund_id, r.occurred_at, r.amount, r.currency
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::text[], $6::integer[], $7::bigint[]) WITH ORDINALITY
  AS s(order_id, refund_id, occurred_at, amount, currency, source_id, source_offset, n)
LEFT JOIN order_refunds AS r ON r.order_id = s.order_id AND r.refund_id = s.refund_id
WHERE r.order_id IS NULL
   OR ((r.occurred_at, r.amount, r.currency) IS DISTINCT FROM (s.occurred_at, s.amount, s.currency)
       AND ((r.source_id = s.source_id AND r.source_offset = s.source_offset)
            OR (s.occurred_at, s.amount, coalesce(s.currency, '')) < (r.occurred_at, r.amount, coalesce(r.currency, ''))));

-- name: overwrite_order_refunds
-- Let these refunds stand where what stands is wrong.
-- $1 order ids, $2 refund ids, $3 times, $4 amounts, $5 currencies or nulls, $6 source ids, $7 source offsets
WITH wrong AS (
  SELECT s.*
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::text[], $6::integer[], $7::bigint[])
    AS s(order_id, refund_id, occurred_at, amount, currency, source_id, source_offset)
  JOIN order_refunds AS r ON r.order_id = s.order_id AND r.refund_id = s.refund_id
  WHERE (r.occurred_at, r.amount, r.currency) IS DISTINCT FROM (s.occurred_at, s.amount, s.currency)
    AND ((r.source_id = s.source_id AND r.source_offset = s.source_offset)
         OR (s.occurred_at, s.amount, coalesce(s.currency, '')) < (r.occurred_at, r.amount, coalesce(r.currency, '')))
  ORDER BY r.order_id, r.refund_id
  FOR NO KEY UPDATE OF r
)
UPDATE order_refunds AS r
SET occurred_at = w.occurred_at, amount = w.amount, currency = w.currency, source_id = w.source_id,
    source_offset = w.source_offset
FROM wrong AS w
WHERE r.order_id = w.order_id AND r.refund_id = w.refund_id
RETURNING r.order_id, r.refund_id;

-- name: find_different_order_totals
-- Of these totals those that are missing or differ.
-- $1 order ids, $2 times, $3 totals, $4 currencies, $5 source ids, $6 source offsets
SELECT s.n, t.order_id IS NULL AS missing, t.order_id, t.occurred_at, t.total, t.currency
FROM unnest($1::text[], $2::timestamptz[], $3::numeric[], $4::text[], $5::integer[], $6::bigint[]) WITH ORDINALITY
  AS s(order_id, occurred_at, total, currency, source_id, source_offset, n)
LEFT JOIN order_totals AS t ON t.order_id = s.order_id
WHERE t.order_id IS NULL
   OR ((t.occurred_at, t.total, t.currency) IS DISTINCT FROM (s.occurred_at, s.total, s.currency)
       AND ((t.source_id = s.source_id AND t.source_offset = s.source_offset)
            OR (s.occurred_at, s.total, s.currency) < (t.occurred_at, t.total, t.currency)));

-- name: overwrite_order_totals
-- Let these totals stand where what stands is wrong.
-- $1 order ids, $2 times, $3 totals, $4 currencies, $5 source ids, $6 source offsets
WITH wrong AS (
  SELECT s.*
  FROM unnest($1::text[], $2::timestamptz[], $3::numeric[], $4::text[], $5::integer[], $6::bigint[])
    AS s(order_id, occurred_at, total, currency, source_id, source_offset)
  JOIN order_totals AS t ON t.order_id = s.order_id
  WHERE (t.occurred_at, t.total, t.currency) IS DISTINCT FROM (s.occurred_at, s.total, s.currency)
    AND ((t.source_id = s.source_id AND t.source_offset = s.source_offset)
         OR (s.occurred_at, s.total, s.currency) < (t.occurred_at, t.total, t.currency))
  ORDER BY t.order_id
  FOR NO KEY UPDATE OF t
)
UPDATE order_totals AS t
SET occurred_at = w.occurred_at, total = w.total, currency = w.currency, source_id = w.source_id,
    source_offset = w.source_offset
FROM wrong AS w
WHERE t.order_id = w.order_id
RETURNING t.order_id;

-- name: find_different_conversions
-- Of these conversions those that are missing or differ.
-- $1 order ids, $2 beneficiaries, $3 times, $4 revenues, $5 commissions, $6 currencies, $7 links, $8 clicks, $9 pixels,
-- $10 source ids, $11 source offsets
SELECT s.n, c.order_id IS NULL AS missing, c.order_id, c.beneficiary, c.occurred_at, c.revenue, c.commission, c.currency,
       c.link_id, c.click_id, c.pixel_id
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::numeric[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::integer[], $11::bigint[]) WITH ORDINALITY
  AS s(order_id, beneficiary, occurred_at, revenue, commission, currency, link_id, click_id, pixel_id, source_id, source_offset,
       n)
LEFT JOIN conversions AS c ON c.order_id = s.order_id AND c.beneficiary = s.beneficiary
WHERE c.order_id IS NULL
   OR ((c.occurred_at, c.revenue, c.commission, c.currency, c.link_id, c.click_id, c.pixel_id)
       IS DISTINCT FROM (s.occurred_at, s.revenue, s.commission, s.currency, s.link_id, s.click_id, s.pixel_id)
       AND ((c.source_id = s.source_id AND c.source_offset = s.source_offset)
            OR (s.occurred_at, s.revenue, coalesce(s.commission, -1), s.currency, coalesce(s.link_id, ''), coalesce(s.click_id, ''))
             < (c.occurred_at, c.revenue, coalesce(c.commission, -1), c.currency, coalesce(c.link_id, ''), coalesce(c.click_id, ''))));

-- name: overwrite_conversions
-- Let these conversions stand where what stands is wrong.
-- $1 order ids, $2 beneficiaries, $3 times, $4 revenues, $5 commissions, $6 currencies, $7 links, $8 clicks, $9 pixels,
-- $10 source ids, $11 source offsets
WITH wrong AS (
  SELECT s.*
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::numeric[], $6::text[], $7::text[], $8::text[],
              $9::text[], $10::integer[], $11::bigint[])
    AS s(order_id, beneficiary, occurred_at, revenue, commission, currency, link_id, click_id, pixel_id, source_id,
         source_offset)
  JOIN conversions AS c ON c.order_id = s.order_id AND c.beneficiary = s.beneficiary
  WHERE (c.occurred_at, c.revenue, c.commission, c.currency, c.link_id, c.click_id, c.pixel_id)
    IS DISTINCT FROM (s.occurred_at, s.revenue, s.commission, s.currency, s.link_id, s.click_id, s.pixel_id)
    AND ((c.source_id = s.source_id AND c.source_offset = s.source_offset)
         OR (s.occurred_at, s.revenue, coalesce(s.commission, -1), s.currency, coalesce(s.link_id, ''), coalesce(s.click_id, ''))
          < (c.occurred_at, c.revenue, coalesce(c.commission, -1), c.currency, coalesce(c.link_id, ''), coalesce(c.click_id, '')))
  ORDER BY c.order_id, c.beneficiary
  FOR NO KEY UPDATE OF c
)
UPDATE conversions AS c
SET occurred_at = w.occurred_at, revenue = w.revenue, commission = w.commission, currency = w.currency, link_id = w.link_id,
    click_id = w.click_id, pixel_id = w.pixel_id, source_id = w.source_id, source_offset = w.source_offset
FROM wrong AS w
WHERE c.order_id = w.order_id AND c.beneficiary = w.beneficiary
RETURNING c.order_id, c.beneficiary;

-- name: find_different_clicks
-- Of these clicks those that are missing or differ; what is left of a forgotten visitor's is as it should be.
-- $1 click ids, $2 times in microseconds since 2000, $3 pixel ids, $4 link ids, $5 addresses, $6 user agents, $7 referrers,
-- $8 landing pages, $9 visitors, $10 whether each is a bot's, $11 source ids, $12 source offsets: each as one text, separated by
-- U+001F, U+001E where it is missing
SELECT s.n, c.click_id IS NULL AS missing, c.click_id, c.occurred_at, c.pixel_id, c.link_id, c.ip_address, c.user_agent,
       c.referrer, c.landing_page, c.visitor, c.is_bot
FROM (
  SELECT *, timestamptz '2000-01-01Z' + microseconds * interval '1 microsecond' AS occurred_at
  FROM unnest(string_to_array($1, E'\x1f'), string_to_array($2, E'\x1f')::bigint[], string_to_array($3, E'\x1f'),
              string_to_array($4, E'\x1f', E'\x1e'), string_to_array($5, E'\x1f', E'\x1e'), string_to_array($6, E'\x1f', E'\x1e'),
              string_to_array($7, E'\x1f', E'\x1e'), string_to_array($8, E'\x1f', E'\x1e'), string_to_array($9, E'\x1f')::bigint[],
              string_to_array($10, E'\x1f')::boolean[], string_to_array($11, E'\x1f')::integer[],
              string_to_array($12, E'\x1f')::bigint[]) WITH ORDINALITY
    AS t(click_id, microseconds, pixel_id, link_id, ip_address, user_agent, referrer, landing_page, visitor, is_bot, source_id,
         source_offset, n)
) AS s
LEFT JOIN aff_clicks AS c ON c.click_id = s.click_id AND c.occurred_at = s.occurred_at
WHERE c.click_id IS NULL
   OR (c.source_id = s.source_id AND c.source_offset = s.source_offset
       AND (c.pixel_id, c.link_id, c.ip_address, c.user_agent, c.referrer, c.landing_page, c.visitor, c.is_bot)
           IS DISTINCT FROM (s.pixel_id, s.link_id, s.ip_address, s.user_agent, s.referrer, s.landing_page, s.visitor, s.is_bot)
       AND NOT EXISTS (SELECT FROM forgotten_visitors AS f WHERE f.visitor = c.visitor));

-- name: overwrite_clicks
-- Let these clicks stand where what stands is wrong.
-- $1 click ids, $2 times, $3 pixel ids, $4 link ids, $5 addresses, $6 user agents, $7 referrers, $8 landing pages,
-- $9 visitors, $10 whether each is a bot's, $11 source ids, $12 source offsets
WITH wrong AS (
  SELECT s.*
  FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
              $9::bigint[], $10::boolean[], $11::integer[], $12::bigint[])
    AS s(click_id, occurred_at, pixel_id, link_id, ip_address, user_agent, referrer, landing_page, visitor, is_bot, source_id,
         source_offset)
  JOIN aff_clicks AS c ON c.click_id = s.click_id AND c.occurred_at = s.occurred_at
  WHERE c.source_id = s.source_id AND c.source_offset = s.source_offset
    AND (c.pixel_id, c.link_id, c.ip_address, c.user_agent, c.referrer, c.landing_page, c.visitor, c.is_bot)
        IS DISTINCT FROM (s.pixel_id, s.link_id, s.ip_address, s.user_agent, s.referrer, s.landing_page, s.visitor, s.is_bot)
    AND NOT EXISTS (SELECT FROM forgotten_visitors AS f WHERE f.visitor = c.visitor)
  ORDER BY c.click_id, c.occurred_at
  FOR NO KEY UPDATE OF c
)
UPDATE aff_clicks AS c
SET pixel_id = w.pixel_id, link_id = w.link_id, ip_address = w.ip_address, user_agent = w.user_agent, referrer = w.referrer,
    landing_page = w.landing_page, visitor = w.visitor, is_bot = w.is_bot, source_id = w.source_id,
    source_offset = w.source_offset
FROM wrong AS w
WHERE c.click_id = w.click_id AND c.occurred_at = w.occurred_at
RETURNING c.click_id, c.occurred_at;

-- name: find_different_users
-- Of these users those that are missing or differ.
-- $1 ids, $2 names, $3 emails, $4 times, $5 source ids, $6 source offsets
SELECT s.n, u.id IS NULL AS missing, u.id, u.name, u.email, u.occurred_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::integer[], $6::bigint[]) WITH ORDINALITY
  AS s(id, name, email, occurred_at, source_id, source_offset, n)
LEFT JOIN shop_users AS u ON u.id = s.id
WHERE u.id IS NULL
   OR ((u.name, u.email, u.occurred_at) IS DISTINCT FROM (s.name, s.email, s.occurred_at)
       AND ((u.source_id = s.source_id AND u.source_offset = s.source_offset)
            OR (u.source_id IS NULL AND u.name IS NULL AND u.email IS NULL)
            OR (s.occurred_at, coalesce(s.name, '') COLLATE "C", coalesce(s.email, '') COLLATE "C")
             < (u.occurred_at, coalesce(u.name, ''), coalesce(u.email, ''))));

-- name: overwrite_users
-- Let these users stand where what stands is wrong.
-- $1 ids, $2 names, $3 emails, $4 times, $5 source ids, $6 source offsets
WITH wrong AS (
  SELECT s.*
  FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::integer[], $6::bigint[])
    AS s(id, name, email, occurred_at, source_id, source_offset)
  JOIN shop_users AS u ON u.id = s.id
  WHERE (u.name, u.email, u.occurred_at) IS DISTINCT FROM (s.name, s.email, s.occurred_at)
    AND ((u.source_id = s.source_id AND u.source_offset = s.source_offset)
         OR (u.source_id IS NULL AND u.name IS NULL AND u.email IS NULL)
         OR (s.occurred_at, coalesce(s.name, '') COLLATE "C", coalesce(s.email, '') COLLATE "C")
          < (u.occurred_at, coalesce(u.name, ''), coalesce(u.email, '')))
  ORDER BY u.id
  FOR NO KEY UPDATE OF u
)
UPDATE shop_users AS u
SET name = w.name, email = w.email, occurred_at = w.occurred_at, source_id = w.source_id, source_offset = w.source_offset
FROM wrong AS w
WHERE u.id = w.id
RETURNING u.id;

-- name: find_different_links
-- Of these links those that are missing or differ.
-- $1 ids, $2 URLs, $3 user ids, $4 named partners, $5 program ids, $6 pixel ids, $7 times, $8 source ids,
-- $9 source offsets
SELECT s.n, l.id IS NULL AS missing, l.id, l.url, l.user_id, l.named_partner_id, l.program_id, l.pixel_id, l.occurred_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::integer[],
            $9::bigint[]) WITH ORDINALITY
  AS s(id, url, user_id, named_partner_id, program_id, pixel_id, occurred_at, source_id, source_offset, n)
LEFT JOIN links AS l ON l.id = s.id
WHERE l.id IS NULL
   OR ((l.url, l.user_id, l.named_partner_id, l.program_id, l.pixel_id, l.occurred_at)
       IS DISTINCT FROM (s.url, s.user_id, s.named_partner_id, s.program_id, s.pixel_id, s.occurred_at)
       AND ((l.source_id = s.source_id AND l.source_offset = s.source_offset)
            OR (s.occurred_at, s.url COLLATE "C", coalesce(s.user_id, ''), coalesce(s.named_partner_id, ''), coalesce(s.pixel_id, ''))
             < (l.occurred_at, l.url, coalesce(l.user_id, ''), coalesce(l.named_partner_id, ''), coalesce(l.pixel_id, ''))));

-- name: overwrite_links
-- Let these links stand where what stands is wrong.
-- $1 ids, $2 URLs, $3 user ids, $4 named partners, $5 program ids, $6 pixel ids, $7 times, $8 source ids,
-- $9 source offsets
WITH wrong AS (
  SELECT s.*
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::integer[],
              $9::bigint[])
    AS s(id, url, user_id, named_partner_id, program_id, pixel_id, occurred_at, source_id, source_offset)
  JOIN links AS l ON l.id = s.id
  WHERE (l.url, l.user_id, l.named_partner_id, l.program_id, l.pixel_id, l.occurred_at)
    IS DISTINCT FROM (s.url, s.user_id, s.named_partner_id, s.program_id, s.pixel_id, s.occurred_at)
    AND ((l.source_id = s.source_id AND l.source_offset = s.source_offset)
         OR (s.occurred_at, s.url COLLATE "C", coalesce(s.user_id, ''), coalesce(s.named_partner_id, ''), coalesce(s.pixel_id, ''))
          < (l.occurred_at, l.url, coalesce(l.user_id, ''), coalesce(l.named_partner_id, ''), coalesce(l.pixel_id, '')))
  ORDER BY l.id
  FOR NO KEY UPDATE OF l
)
UPDATE links AS l
SET url = w.url, user_id = w.user_id, named_partner_id = w.named_partner_id, program_id = w.program_id, pixel_id = w.pixel_id,
    occurred_at = w.occurred_at, source_id = w.source_id, source_offset = w.source_offset,
    partner_id = CASE WHEN (l.user_id, l.named_partner_id) IS DISTINCT FROM (w.user_id, w.named_partner_id)
                      THEN w.named_partner_id ELSE l.partner_id END
FROM wrong AS w
WHERE l.id = w.id
RETURNING l.id;

-- name: find_missing_programs
-- Of these base domains those that no program has.
-- $1 base domains, $2 program ids, $3 source ids, $4 source offsets
SELECT s.n, true AS missing
FROM unnest($1::text[], $2::text[], $3::integer[], $4::bigint[]) WITH ORDINALITY
  AS s(base_domain, id, source_id, source_offset, n)
LEFT JOIN programs AS p ON p.base_domain = s.base_domain
WHERE p.id IS NULL;

-- name: find_missing_partners
-- Of these partners those that there are not.
-- $1 ids, $2 source ids, $3 source offsets
SELECT s.n, true AS missing
FROM unnest($1::text[], $2::integer[], $3::bigint[]) WITH ORDINALITY AS s(id, source_id, source_offset, n)
LEFT JOIN partners AS p ON p.id = s.id
WHERE p.id IS NULL;

-- name: find_different_vouchers
-- Of these vouchers those that are missing or differ.
-- $1 ids, $2 times of creation, $3 businesses, $4 titles, $5 times of expiry, $6 source ids, $7 source offsets
SELECT s.n, v.created_at IS NULL AS missing, v.id, v.created_at, v.business_id, v.title, v.expires_at
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::timestamptz[], $6::integer[], $7::bigint[]) WITH ORDINALITY
  AS s(id, created_at, business_id, title, expires_at, source_id, source_offset, n)
LEFT JOIN vouchers AS v ON v.id = s.id
WHERE v.created_at IS NULL
   OR ((v.created_at, v.business_id, v.title, v.expires_at)
       IS DISTINCT FROM (s.created_at, s.business_id, s.title, s.expires_at)
       AND ((v.source_id = s.source_id AND v.source_offset = s.source_offset)
            OR (s.created_at, coalesce(s.business_id, ''), coalesce(s.title, '') COLLATE "C", coalesce(s.expires_at, '-infinity'))
             < (v.created_at, coalesce(v.business_id, ''), coalesce(v.title, '') COLLATE "C", coalesce(v.expires_at, '-infinity'))));

-- name: overwrite_vouchers
-- Let these vouchers stand where what stands is wrong.
-- $1 ids, $2 times of creation, $3 businesses, $4 titles, $5 times of expiry, $6 source ids, $7 source offsets
WITH wrong AS (
  SELECT s.*
  FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::timestamptz[], $6::integer[], $7::bigint[])
    AS s(id, created_at, business_id, title, expires_at, source_id, source_offset)
  JOIN vouchers AS v ON v.id = s.id
  WHERE (v.created_at, v.business_id, v.title, v.expires_at)
    IS DISTINCT FROM (s.created_at, s.business_id, s.title, s.expires_at)
    AND ((v.source_id = s.source_id AND v.source_offset = s.source_offset)
         OR (s.created_at, coalesce(s.business_id, ''), coalesce(s.title, '') COLLATE "C", coalesce(s.expires_at, '-infinity'))
          < (v.created_at, coalesce(v.business_id, ''), coalesce(v.title, '') COLLATE "C", coalesce(v.expires_at, '-infinity')))
  ORDER BY v.id
  FOR NO KEY UPDATE OF v
)
UPDATE vouchers AS v
SET created_at = w.created_at, business_id = w.business_id, title = w.title, expires_at = w.expires_at, source_id = w.source_id,
    source_offset = w.source_offset, updated_at = now()
FROM wrong AS w
WHERE v.id = w.id
RETURNING v.id;

-- name: find_different_impressions
-- Of these impressions those that are missing or differ.
-- $1 impression ids, $2 times, $3 vouchers, $4 source ids, $5 source offsets
SELECT s.n, i.impression_id IS NULL AS missing, i.impression_id, i.occurred_at, i.voucher_id
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::integer[], $5::bigint[]) WITH ORDINALITY
  AS s(impression_id, occurred_at, voucher_id, source_id, source_offset, n)
LEFT JOIN voucher_impressions AS i ON i.impression_id = s.impression_id
WHERE i.impression_id IS NULL
   OR ((i.occurred_at, i.voucher_id) IS DISTINCT FROM (s.occurred_at, s.voucher_id)
       AND ((i.source_id = s.source_id AND i.source_offset = s.source_offset)
            OR (s.occurred_at, s.voucher_id) < (i.occurred_at, i.voucher_id)));

-- name: overwrite_impressions
-- Let these impressions stand where what stands is wrong.
-- $1 impression ids, $2 times, $3 vouchers, $4 source ids, $5 source offsets
WITH wrong AS (
  SELECT s.*
  FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::integer[], $5::bigint[])
    AS s(impression_id, occurred_at, voucher_id, source_id, source_offset)
  JOIN voucher_impressions AS i ON i.impression_id = s.impression_id
  WHERE (i.occurred_at, i.voucher_id) IS DISTINCT FROM (s.occurred_at, s.voucher_id)
    AND ((i.source_id = s.source_id AND i.source_offset = s.source_offset)
         OR (s.occurred_at, s.voucher_id) < (i.occurred_at, i.voucher_id))
  ORDER BY i.impression_id
  FOR NO KEY UPDATE OF i
)
UPDATE voucher_impressions AS i
SET occurred_at = w.occurred_at, voucher_id = w.voucher_id, source_id = w.source_id, source_offset = w.source_offset
FROM wrong AS w
WHERE i.impression_id = w.impression_id
RETURNING i.impression_id;

-- name: find_different_claims
-- Of these claims those that are missing or differ.
-- $1 customers, $2 vouchers, $3 times, $4 metadata, $5 source ids, $6 source offsets
SELECT s.n, c.claimed_at IS NULL AS missing, c.customer_id, c.voucher_id, c.claimed_at, c.metadata,
       s.metadata::jsonb AS wanted_metadata
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::integer[], $6::bigint[]) WITH ORDINALITY
  AS s(customer_id, voucher_id, claimed_at, metadata, source_id, source_offset, n)
LEFT JOIN customer_vouchers AS c ON c.customer_id = s.customer_id AND c.voucher_id = s.voucher_id
WHERE c.claimed_at IS NULL
   OR ((c.claimed_at, c.metadata) IS DISTINCT FROM (s.claimed_at, s.metadata::jsonb)
       AND ((c.source_id = s.source_id AND c.source_offset = s.source_offset)
            OR (s.claimed_at, s.metadata::jsonb::text COLLATE "C") < (c.claimed_at, c.metadata::text COLLATE "C")));

-- name: overwrite_claims
-- Let these claims stand where what stands is wrong.
-- $1 customers, $2 vouchers, $3 times, $4 metadata, $5 source ids, $6 source offsets
WITH wrong AS (
  SELECT s.*
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::integer[], $6::bigint[])
    AS s(customer_id, voucher_id, claimed_at, metadata, source_id, source_offset)
  JOIN customer_vouchers AS c ON c.customer_id = s.customer_id AND c.voucher_id = s.voucher_id
  WHERE (c.claimed_at, c.metadata) IS DISTINCT FROM (s.claimed_at, s.metadata::jsonb)
    AND ((c.source_id = s.source_id AND c.source_offset = s.source_offset)
         OR (s.claimed_at, s.metadata::jsonb::text COLLATE "C") < (c.claimed_at, c.metadata::text COLLATE "C"))
  ORDER BY c.customer_id, c.voucher_id
  FOR NO KEY UPDATE OF c
)
UPDATE customer_vouchers AS c
SET claimed_at = w.claimed_at, metadata = w.metadata::jsonb, source_id = w.source_id, source_offset = w.source_offset
FROM wrong AS w
WHERE c.customer_id = w.customer_id AND c.voucher_id = w.voucher_id
RETURNING c.customer_id, c.voucher_id;

-- name: find_different_redemptions
-- Of these attempts those that are missing or differ.
-- $1 attempt ids, $2 times, $3 vouchers, $4 businesses, $5 customers, $6 whether successful, $7 reasons, $8 devices,
-- $9 locations, $10 metadata, $11 source ids, $12 source offsets
SELECT s.n, a.attempt_id IS NULL AS missing, a.attempt_id, a.attempted_at, a.voucher_id, a.business_id, a.customer_id,
       a.successful, a.failure_reason, a.device_info, a.location, a.metadata, s.device_info::jsonb AS wanted_device_info,
       s.location::jsonb AS wanted_location, s.metadata::jsonb AS wanted_metadata
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::integer[], $12::bigint[]) WITH ORDINALITY
  AS s(attempt_id, attempted_at, voucher_id, business_id, customer_id, successful, failure_reason, device_info, location,
       metadata, source_id, source_offset, n)
LEFT JOIN redemption_attempts AS a ON a.attempt_id = s.attempt_id
WHERE a.attempt_id IS NULL
   OR ((a.attempted_at, a.voucher_id, a.business_id, a.customer_id, a.successful, a.failure_reason, a.device_info, a.location,
        a.metadata)
       IS DISTINCT FROM (s.attempted_at, s.voucher_id, s.business_id, s.customer_id, s.successful, s.failure_reason,
                         s.device_info::jsonb, s.location::jsonb, s.metadata::jsonb)
       AND ((a.source_id = s.source_id AND a.source_offset = s.source_offset)
            OR attempt_order(ROW(s.attempt_id, s.attempted_at, s.voucher_id, s.business_id, s.customer_id, s.successful,
                                 s.failure_reason, s.device_info, s.location, s.metadata, NULL, NULL)::redemption_attempts)
             < attempt_order(a)));

-- name: overwrite_redemptions
-- Let these attempts stand where what stands is wrong.
-- $1 attempt ids, $2 times, $3 vouchers, $4 businesses, $5 customers, $6 whether successful, $7 reasons, $8 devices,
-- $9 locations, $10 metadata, $11 source ids, $12 source offsets
WITH wrong AS (
  SELECT s.*
  FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::text[], $8::text[],
              $9::text[], $10::text[], $11::integer[], $12::bigint[])
    AS s(attempt_id, attempted_at, voucher_id, business_id, customer_id, successful, failure_reason, device_info, location,
         metadata, source_id, source_offset)
  JOIN redemption_attempts AS a ON a.attempt_id = s.attempt_id
  WHERE (a.attempted_at, a.voucher_id, a.business_id, a.customer_id, a.successful, a.failure_reason, a.device_info, a.location,
     a.metadata)
    IS DISTINCT FROM (s.attempted_at, s.voucher_id, s.business_id, s.customer_id, s.successful, s.failure_reason,
                      s.device_info::jsonb, s.location::jsonb, s.metadata::jsonb)
    AND ((a.source_id = s.source_id AND a.source_offset = s.source_offset)
         OR attempt_order(ROW(s.attempt_id, s.attempted_at, s.voucher_id, s.business_id, s.customer_id, s.successful,
                              s.failure_reason, s.device_info, s.location, s.metadata, NULL, NULL)::redemption_attempts)
          < attempt_order(a))
  ORDER BY a.attempt_id
  FOR NO KEY UPDATE OF a
)
UPDATE redemption_attempts AS a
SET attempted_at = w.attempted_at, voucher_id = w.voucher_id, business_id = w.business_id, customer_id = w.customer_id,
    successful = w.successful, failure_reason = w.failure_reason, device_info = w.device_info::jsonb,
    location = w.location::jsonb, metadata = w.metadata::jsonb, source_id = w.source_id, source_offset = w.source_offset
FROM wrong AS w
WHERE a.attempt_id = w.attempt_id
RETURNING a.attempt_id;

-- name: find_different_scans
-- Of these scans those that are missing or differ.
-- $1 scan ids, $2 times in microseconds since 2000, $3 vouchers, $4 users, $5 types, $6 sources, $7 devices, $8 locations,
-- $9 addresses, $10 user agents, $11 metadata, $12 source ids, $13 source offsets: each as one text, separated by U+001F, U+001E
-- where it is missing
SELECT s.n, v.scan_id IS NULL AS missing, v.scan_id, v.occurred_at, v.voucher_id, v.user_id, v.scan_type, v.scan_source,
       v.device_info, v.location, v.ip_address, v.user_agent, v.metadata, s.device_info::jsonb AS wanted_device_info,
       s.location::jsonb AS wanted_location, s.metadata::jsonb AS wanted_metadata
FROM (
  SELECT *, timestamptz '2000-01-01Z' + microseconds * interval '1 microsecond' AS occurred_at
  FROM unnest(string_to_array($1, E'\x1f'), string_to_array($2, E'\x1f')::bigint[], string_to_array($3, E'\x1f'),
              string_to_array($4, E'\x1f', E'\x1e'), string_to_array($5, E'\x1f'), string_to_array($6, E'\x1f'),
              string_to_array($7, E'\x1f', E'\x1e'), string_to_array($8, E'\x1f', E'\x1e'), string_to_array($9, E'\x1f', E'\x1e'),
              string_to_array($10, E'\x1f', E'\x1e'), string_to_array($11, E'\x1f', E'\x1e'),
              string_to_array($12, E'\x1f')::integer[], string_to_array($13, E'\x1f')::bigint[]) WITH ORDINALITY
    AS t(scan_id, microseconds, voucher_id, user_id, scan_type, scan_source, device_info, location, ip_address, user_agent,
         metadata, source_id, source_offset, n)
) AS s
LEFT JOIN voucher_scans AS v ON v.scan_id = s.scan_id AND v.occurred_at = s.occurred_at
WHERE v.scan_id IS NULL
   OR (v.source_id = s.source_id AND v.source_offset = s.source_offset
       AND (v.voucher_id, v.user_id, v.scan_type, v.scan_source, v.device_info, v.location, v.ip_address, v.user_agent,
            v.metadata)
           IS DISTINCT FROM (s.voucher_id, s.user_id, s.scan_type, s.scan_source, s.device_info::jsonb, s.location::jsonb,
                             s.ip_address, s.user_agent, s.metadata::jsonb));

-- name: overwrite_scans
-- Let these scans stand where what stands is wrong.
-- $1 scan ids, $2 times, $3 vouchers, $4 users, $5 types, $6 sources, $7 devices, $8 locations, $9 addresses,
-- $10 user agents, $11 metadata, $12 source ids, $13 source offsets
WITH wrong AS (
  SELECT s.*
  FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
              $10::text[], $11::text[], $12::integer[], $13::bigint[])
    AS s(scan_id, occurred_at, voucher_id, user_id, scan_type, scan_source, device_info, location, ip_address, user_agent,
         metadata, source_id, source_offset)
  JOIN voucher_scans AS v ON v.scan_id = s.scan_id AND v.occurred_at = s.occurred_at
  WHERE v.source_id = s.source_id AND v.source_offset = s.source_offset
    AND (v.voucher_id, v.user_id, v.scan_type, v.scan_source, v.device_info, v.location, v.ip_address, v.user_agent, v.metadata)
        IS DISTINCT FROM (s.voucher_id, s.user_id, s.scan_type, s.scan_source, s.device_info::jsonb, s.location::jsonb,
                          s.ip_address, s.user_agent, s.metadata::jsonb)
  ORDER BY v.scan_id, v.occurred_at
  FOR NO KEY UPDATE OF v
)
UPDATE voucher_scans AS v
SET voucher_id = w.voucher_id, user_id = w.user_id, scan_type = w.scan_type, scan_source = w.scan_source,
    device_info = w.device_info::jsonb, location = w.location::jsonb, ip_address = w.ip_address, user_agent = w.user_agent,
    metadata = w.metadata::jsonb, source_id = w.source_id, source_offset = w.source_offset
FROM wrong AS w
WHERE v.scan_id = w.scan_id AND v.occurred_at = w.occurred_at
RETURNING v.scan_id, v.occurred_at;

-- name: find_different_stock_changes
-- Of these stock changes those that are missing or differ.
-- $1 times, $2 event ids, $3 SKUs, $4 types, $5 old stocks, $6 new stocks, $7 deltas, $8 metadata, $9 names,
-- $10 thresholds, $11 unit prices, $12 suppliers, $13 source ids, $14 source offsets
SELECT s.n, e.occurred_at IS NULL AS missing, e.occurred_at, e.event_id, e.sku, e.event_type, e.old_stock, e.new_stock,
       e.quantity_delta, e.metadata, e.name, e.threshold, e.unit_price, e.supplier, s.metadata::jsonb AS wanted_metadata
FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[],
            $9::text[], $10::integer[], $11::numeric[], $12::text[], $13::integer[], $14::bigint[]) WITH ORDINALITY
  AS s(occurred_at, event_id, sku, event_type, old_stock, new_stock, quantity_delta, metadata, name, threshold, unit_price,
       supplier, source_id, source_offset, n)
LEFT JOIN inventory_events AS e ON e.occurred_at = s.occurred_at AND e.event_id = s.event_id
WHERE e.occurred_at IS NULL
   OR ((e.sku, e.event_type, e.old_stock, e.new_stock, e.quantity_delta, e.metadata, e.name, e.threshold, e.unit_price,
        e.supplier)
       IS DISTINCT FROM (s.sku, s.event_type, s.old_stock, s.new_stock, s.quantity_delta, s.metadata::jsonb, s.name,
                         s.threshold, s.unit_price, s.supplier)
       AND ((e.source_id = s.source_id AND e.source_offset = s.source_offset)
            OR stock_change_order(ROW(s.event_id, s.occurred_at, s.sku, s.event_type, s.old_stock, s.new_stock, s.quantity_delta,
                                      s.metadata, s.name, s.threshold, s.unit_price, s.supplier, NULL, NULL)::inventory_events)
             < stock_change_order(e))
       AND NOT EXISTS (SELECT FROM alerts AS a WHERE a.alert_id = e.event_id));

-- name: overwrite_stock_changes
-- Let these stock changes stand where what stands is wrong.
-- $1 times, $2 event ids, $3 SKUs, $4 types, $5 old stocks, $6 new stocks, $7 deltas, $8 metadata, $9 names,
-- $10 thresholds, $11 unit prices, $12 suppliers, $13 source ids, $14 source offsets
WITH wrong AS (
  SELECT s.*
  FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[],
              $9::text[], $10::integer[], $11::numeric[], $12::text[], $13::integer[], $14::bigint[])
    AS s(occurred_at, event_id, sku, event_type, old_stock, new_stock, quantity_delta, metadata, name, threshold, unit_price,
         supplier, source_id, source_offset)
  JOIN inventory_events AS e ON e.occurred_at = s.occurred_at AND e.event_id = s.event_id
  WHERE (e.sku, e.event_type, e.old_stock, e.new_stock, e.quantity_delta, e.metadata, e.name, e.threshold, e.unit_price, e.supplier)
    IS DISTINCT FROM (s.sku, s.event_type, s.old_stock, s.new_stock, s.quantity_delta, s.metadata::jsonb, s.name, s.threshold,
                      s.unit_price, s.supplier)
    AND ((e.source_id = s.source_id AND e.source_offset = s.source_offset)
         OR stock_change_order(ROW(s.event_id, s.occurred_at, s.sku, s.event_type, s.old_stock, s.new_stock, s.quantity_delta,
                                   s.metadata, s.name, s.threshold, s.unit_price, s.supplier, NULL, NULL)::inventory_events)
          < stock_change_order(e))
    AND NOT EXISTS (SELECT FROM alerts AS a WHERE a.alert_id = e.event_id)
  ORDER BY e.occurred_at, e.event_id
  FOR NO KEY UPDATE OF e
)
UPDATE inventory_events AS e
SET sku = w.sku, event_type = w.event_type, old_stock = w.old_stock, new_stock = w.new_stock, quantity_delta = w.quantity_delta,
    metadata = w.metadata::jsonb, name = w.name, threshold = w.threshold, unit_price = w.unit_price, supplier = w.supplier,
    source_id = w.source_id, source_offset = w.source_offset
FROM wrong AS w
WHERE e.occurred_at = w.occurred_at AND e.event_id = w.event_id
RETURNING e.occurred_at, e.event_id;
