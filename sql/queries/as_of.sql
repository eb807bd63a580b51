-- name: list_affiliate_coupons_at
-- Coupons with their counts as of a time, the most used first, and when the latest of what they count happened.
-- $1 code or null for all, $2 limit, $3 offset, $4 as of
SELECT code, sum(count)::bigint AS times_used, max(moved_at) AS updated_at
FROM (
  SELECT code, count(*) FILTER (WHERE reversed_at IS NULL OR reversed_at > $4::timestamptz) AS count,
         max(greatest(occurred_at, CASE WHEN reversed_at <= $4 THEN reversed_at END)) AS moved_at
  FROM affiliate_coupon_usages
  WHERE occurred_at <= $4 AND ($1::text IS NULL OR code = $1)
  GROUP BY code
  UNION ALL
  SELECT code, sum(delta), max(created_at)
  FROM affiliate_coupon_adjustments
  WHERE created_at <= $4 AND ($1::text IS NULL OR code = $1)
  GROUP BY code
  UNION ALL
  SELECT code, 0, updated_at FROM affiliate_coupons
  WHERE usage_count = 0 AND times_used = 0 AND NOT adjusted AND updated_at <= $4 AND ($1::text IS NULL OR code = $1)
) AS ledgers
GROUP BY code
ORDER BY times_used DESC, code
LIMIT $2 OFFSET $3;

-- name: list_promo_codes_at
-- Promo codes with their counts as of a time, the most used first, and when the latest of what they count happened.
-- $1 code or null for all, $2 limit, $3 offset, $4 as of
SELECT p.id, p.code, c.times_used, c.total_bonus_issued, c.updated_at
FROM (
  SELECT id, sum(count)::bigint AS times_used, sum(bonus) AS total_bonus_issued, max(moved_at) AS updated_at
  FROM (
    SELECT promo_code_id AS id, count(*) FILTER (WHERE reversed_at IS NULL OR reversed_at > $4::timestamptz) AS count,
           coalesce(sum(bonus_amount) FILTER (WHERE reversed_at IS NULL OR reversed_at > $4), 0) AS bonus,
           max(greatest(occurred_at, CASE WHEN reversed_at <= $4 THEN reversed_at END)) AS moved_at
    FROM promo_code_uses
    WHERE occurred_at <= $4 AND ($1::text IS NULL OR promo_code_id = (SELECT id FROM promo_codes WHERE code = $1))
    GROUP BY promo_code_id
    UNION ALL
    SELECT promo_code_id, sum(delta), sum(bonus_delta), max(created_at)
    FROM promo_code_adjustments WHERE created_at <= $4 GROUP BY promo_code_id
    UNION ALL
    SELECT id, 0, 0, updated_at FROM promo_codes
    WHERE use_count = 0 AND times_used = 0 AND total_bonus_issued = 0 AND NOT adjusted AND updated_at <= $4
  ) AS ledgers
  GROUP BY id
) AS c
JOIN promo_codes AS p USING (id)
WHERE $1 IS NULL OR p.code = $1
ORDER BY c.times_used DESC, p.code
LIMIT $2 OFFSET $3;

-- name: list_affiliates_at
-- As list_affiliates, of the 30 days that end with a time, and with the status of that time.
-- $1 handle or null for all, $2 status or null for all, $3 limit, $4 offset, $5 as of
WITH chosen AS MATERIALIZED (
  SELECT * FROM (
    SELECT id, handle, name, coalesce(affiliate_status_at(pixel_id, $5::timestamptz), status) AS status, pixel_id, created_at
    FROM affiliates WHERE $1::text IS NULL OR handle = $1
  ) AS a
  WHERE $2::text IS NULL OR status = $2
  ORDER BY handle
  LIMIT $3 OFFSET $4
), days AS MATERIALIZED (
  SELECT d.*
  FROM (SELECT array_agg(pixel_id) AS pixels, last_day_at($5) AS last_day FROM chosen) AS c,
       affiliate_days_at(c.pixels, c.last_day - 29, c.last_day, $5) AS d
)
SELECT a.id, a.handle, a.name, a.status, a.pixel_id, a.created_at, o.codes, m.metrics
FROM chosen AS a
CROSS JOIN LATERAL (
  SELECT coalesce(array_agg(code ORDER BY code), '{}') AS codes FROM affiliate_coupon_owners WHERE pixel_id = a.pixel_id
) AS o
CROSS JOIN LATERAL (
  SELECT coalesce(jsonb_agg(jsonb_build_object(
    'currency', v.currency, 'digits', currency_digits(v.currency),
    'clicks', v.clicks, 'unique_clicks', v.unique_clicks, 'bot_clicks', v.bot_clicks,
    'conversions', v.conversions, 'revenue', v.revenue::text, 'commission', v.commission::text
  ) ORDER BY v.currency), '[]') AS metrics
  FROM (
    SELECT currency, sum(clicks) AS clicks, sum(unique_clicks) AS unique_clicks, sum(bot_clicks) AS bot_clicks,
           sum(conversions) AS conversions, sum(revenue) AS revenue, sum(commission) AS commission
    FROM days WHERE pixel_id = a.pixel_id GROUP BY currency
  ) AS v
) AS m
ORDER BY a.handle;

-- name: affiliate_days_as_of
-- As affiliate_days, of a span that ends with a time; before the year 1 there are no days.
-- $1 pixel, $2 days, $3 as of
SELECT s.day::date AS day, coalesce(d.currency, '') AS currency, currency_digits(d.currency) AS digits,
  coalesce(d.clicks, 0) AS clicks, coalesce(d.unique_clicks, 0) AS unique_clicks,
  coalesce(d.bot_clicks, 0) AS bot_clicks, coalesce(d.conversions, 0) AS conversions,
  coalesce(d.revenue, 0) AS revenue, coalesce(d.commission, 0) AS commission
FROM (SELECT last_day_at($3::timestamptz) AS last) AS span
CROSS JOIN LATERAL generate_series(greatest(span.last - ($2::integer - 1), date '0001-01-01'), span.last, interval '1 day') AS s(day)
LEFT JOIN affiliate_days_at(ARRAY[$1::text], (SELECT last_day_at($3) - ($2 - 1)), (SELECT last_day_at($3)), $3) AS d
  ON d.day = s.day::date
ORDER BY s.day, d.currency;

-- name: affiliate_status_history_at
-- As affiliate_status_history, of what was valid by a time.
-- $1 pixel, $2 as of
SELECT status, valid_from, actor FROM affiliate_status_changes
WHERE pixel_id = $1 AND valid_from <= $2::timestamptz
ORDER BY valid_from, id;

-- name: balances_of_partner_at
-- What a partner had earned by a time in each currency, and was paid of it: by payouts, and by rows that say so themselves.
-- $1 partner id, $2 as of
SELECT currency, currency_digits(currency) AS digits, sum(earnings) AS total, sum(paid) AS paid
FROM (
  SELECT c.currency, c.earnings, 0 AS paid
  FROM commissions_at((SELECT array_agg(order_id) FROM orders_of_partner_at($1, $2::timestamptz)), $2) AS c
  WHERE c.partner_id = $1
  UNION ALL
  SELECT currency, 0, amount FROM payouts WHERE partner_id = $1 AND created_at <= $2
  UNION ALL
  SELECT currency, 0, earnings FROM commissions
  WHERE partner_id = $1 AND status = 'paid' AND payout_id IS NULL AND occurred_at <= $2
) AS moved
GROUP BY currency
ORDER BY currency;

-- name: list_earnings_at
-- What a partner had earned by a time, a row for each order, the latest sale first.
-- $1 partner id, $2 program or null, $3 link or null, $4 order or null, $5 currency or null, $6 from or null, $7 before or null,
-- $8 as of, $9 limit, $10 offset
SELECT order_id, program_id, link_id, revenue, refunded, amount, earnings, rate_percent, rate_source, currency,
       currency_digits(currency) AS digits, canceled_at IS NOT NULL AS is_canceled, occurred_at
FROM commissions_at((SELECT array_agg(order_id) FROM orders_of_partner_at($1, $8::timestamptz)), $8)
WHERE partner_id = $1
  AND ($2::text IS NULL OR program_id = $2)
  AND ($3::text IS NULL OR link_id = $3)
  AND ($4::text IS NULL OR order_id = $4)
  AND ($5::text IS NULL OR currency = $5)
  AND ($6::timestamptz IS NULL OR occurred_at >= $6)
  AND ($7::timestamptz IS NULL OR occurred_at < $7)
ORDER BY occurred_at DESC, order_id, beneficiary, currency, link_id
LIMIT $9 OFFSET $10;

-- name: orders_of_partner_at
-- Orders that a partner may have earned something with by a time, the latest first.
-- $1 partner id, $2 as of
SELECT order_id FROM orders_of_partner_at($1, $2) ORDER BY occurred_at DESC, order_id;

-- name: list_earnings_of_orders_at
-- As list_earnings_at, of some orders alone: a long list is read a part at a time.
-- $1 partner id, $2 program or null, $3 link or null, $4 order or null, $5 currency or null, $6 from or null, $7 before or null,
-- $8 as of, $9 order ids
SELECT order_id, program_id, link_id, revenue, refunded, amount, earnings, rate_percent, rate_source, currency,
       currency_digits(currency) AS digits, canceled_at IS NOT NULL AS is_canceled, occurred_at
FROM commissions_at($9::text[], $8)
WHERE partner_id = $1
  AND ($2::text IS NULL OR program_id = $2)
  AND ($3::text IS NULL OR link_id = $3)
  AND ($4::text IS NULL OR order_id = $4)
  AND ($5::text IS NULL OR currency = $5)
  AND ($6::timestamptz IS NULL OR occurred_at >= $6)
  AND ($7::timestamptz IS NULL OR occurred_at < $7)
ORDER BY occurred_at DESC, order_id, beneficiary, currency, link_id;

-- name: group_earnings_at
-- Sums of what a partner had earned by a time, each in its currency; canceled orders are none.
-- $1 partner id, $2 program or null, $3 link or null, $4 order or null, $5 currency or null, $6 from or null, $7 before or null,
-- $8 as of, $9 what to group by: program, link, month; $10 limit or null, $11 offset
SELECT CASE WHEN 'month' = ANY ($9::text[]) THEN to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM') END AS month,
       CASE WHEN 'program' = ANY ($9) THEN program_id END AS program_id,
       CASE WHEN 'link' = ANY ($9) THEN link_id END AS link_id,
       currency, currency_digits(currency) AS digits, count(*) AS commissions, sum(amount) AS amount,
       sum(earnings) AS earnings
FROM commissions_at((SELECT array_agg(order_id) FROM orders_of_partner_at($1, $8::timestamptz)), $8)
WHERE partner_id = $1
  AND canceled_at IS NULL
  AND ($2::text IS NULL OR program_id = $2)
  AND ($3::text IS NULL OR link_id = $3)
  AND ($4::text IS NULL OR order_id = $4)
  AND ($5::text IS NULL OR currency = $5)
  AND ($6::timestamptz IS NULL OR occurred_at >= $6)
  AND ($7::timestamptz IS NULL OR occurred_at < $7)
GROUP BY 1, 2, 3, currency
ORDER BY 1 DESC NULLS LAST, 2, 3, currency
LIMIT $10 OFFSET $11;
