-- name: explain_claims
-- Everybody's claim to an order, the one that stands first, and what speaks against each of the others.
-- $1 order id
SELECT c.beneficiary, c.pixel_id, a.handle, c.link_id, c.click_id, c.revenue, c.commission, c.currency,
       currency_digits(c.currency) AS digits, c.occurred_at, row_number() OVER claims = 1 AS stands,
       CASE WHEN row_number() OVER claims = 1 THEN NULL
            WHEN c.occurred_at > first_value(c.occurred_at) OVER claims THEN 'later'
            WHEN c.pixel_id > first_value(c.pixel_id) OVER claims THEN 'larger_pixel'
            WHEN c.pixel_id IS NULL AND first_value(c.pixel_id) OVER claims IS NOT NULL THEN 'link_against_pixel'
            ELSE 'larger_link' END AS refused_as,
       s.cluster_id, s.topic, s."partition", c.source_offset
FROM conversions AS c
LEFT JOIN affiliates AS a ON a.pixel_id = c.pixel_id
LEFT JOIN stream_sources AS s ON s.id = c.source_id
WHERE c.order_id = $1
WINDOW claims AS (ORDER BY c.occurred_at, c.pixel_id, c.link_id, c.beneficiary)
ORDER BY c.occurred_at, c.pixel_id, c.link_id, c.beneficiary;

-- name: explain_usages_of_order
-- The codes that an order used, each with the affiliate whose coupon it is.
-- $1 order id
SELECT u.code, o.pixel_id AS owner_pixel_id, a.handle AS owner, u.occurred_at, u.reversed_at,
       s.cluster_id, s.topic, s."partition", u.source_offset
FROM affiliate_coupon_usages AS u
LEFT JOIN affiliate_coupon_owners AS o ON o.code = u.code
LEFT JOIN affiliates AS a ON a.pixel_id = o.pixel_id
LEFT JOIN stream_sources AS s ON s.id = u.source_id
WHERE u.order_id = $1
ORDER BY u.code;

-- name: explain_promo_uses_of_order
-- The promo codes that an order used, with their rewards.
-- $1 order id
SELECT p.code, u.base_reward, u.bonus_amount, u.total_reward, u.customer_address, u.shop_id, u.occurred_at, u.reversed_at,
       s.cluster_id, s.topic, s."partition", u.source_offset
FROM promo_code_uses AS u
JOIN promo_codes AS p ON p.id = u.promo_code_id
LEFT JOIN stream_sources AS s ON s.id = u.source_id
WHERE u.order_id = $1
ORDER BY p.code;

-- name: explain_refunds
-- An order's refunds by time.
-- $1 order id
SELECT r.refund_id, r.amount, r.currency, currency_digits(r.currency) AS digits, r.occurred_at,
       s.cluster_id, s.topic, s."partition", r.source_offset
FROM order_refunds AS r LEFT JOIN stream_sources AS s ON s.id = r.source_id
WHERE r.order_id = $1
ORDER BY r.occurred_at, r.refund_id;

-- name: explain_refused_facts
-- What was told of an order's conversions, refunds and promo uses with another content that does not stand.
-- $1 order id
SELECT f.topic AS event, f.content - '{refund_id,beneficiary,code}'::text[] AS content,
       coalesce(f.content ->> 'refund_id', f.content ->> 'beneficiary', f.content ->> 'code') AS of_what,
       s.cluster_id, s.topic, s."partition", f.source_offset
FROM refused_facts AS f LEFT JOIN stream_sources AS s ON s.id = f.source_id
WHERE f.order_id = $1
ORDER BY f.topic, of_what, f.content ->> 'occurred_at', f.content;

-- name: explain_cancellation
-- The cancellation of an order, if there is one.
-- $1 order id
SELECT c.canceled_at, c.reason, s.cluster_id, s.topic, s."partition", c.source_offset
FROM order_cancellations AS c LEFT JOIN stream_sources AS s ON s.id = c.source_id
WHERE c.order_id = $1;

-- name: explain_order_total
-- What an order came to, kept where attribution by coupon is switched on.
-- $1 order id
SELECT t.total, t.currency, currency_digits(t.currency) AS digits, t.occurred_at,
       s.cluster_id, s.topic, s."partition", t.source_offset
FROM order_totals AS t LEFT JOIN stream_sources AS s ON s.id = t.source_id
WHERE t.order_id = $1;

-- name: explain_attribution
-- Whom an order is attributed to by its facts, and what is owed for it; with the status of the attribution that is stored.
-- $1 order id
SELECT t.origin, t.beneficiary, t.code, t.pixel_id, f.handle, t.link_id, t.program_id, g.base_domain, t.partner_id,
       p.name AS partner_name, t.revenue, t.refunded, t.currency, currency_digits(t.currency) AS digits, t.rate_percent,
       t.rate_source, t.amount AS target_amount, t.earnings AS target_earnings, t.occurred_at, a.status
FROM order_targets(ARRAY[$1::text]) AS t
LEFT JOIN aff_attributions AS a ON a.order_id = t.order_id
LEFT JOIN affiliates AS f ON f.pixel_id = t.pixel_id
LEFT JOIN programs AS g ON g.id = t.program_id
LEFT JOIN partners AS p ON p.id = t.partner_id;

-- name: explain_status_of_order
-- The status by which an order's affiliate was judged: that of the order's own time, or else the earliest known.
-- $1 order id
SELECT s.status, s.valid_from, s.actor, s.valid_from > t.occurred_at AS earliest_known
FROM order_targets(ARRAY[$1::text]) AS t
JOIN affiliate_status_changes AS s ON s.pixel_id = t.pixel_id
ORDER BY s.valid_from > t.occurred_at, CASE WHEN s.valid_from > t.occurred_at THEN s.valid_from END,
         s.valid_from DESC, s.id DESC
LIMIT 1;

-- name: explain_program_rate_of_order
-- The rate of an order's program by which it was judged: that of the order's own time, or else the earliest known.
-- $1 order id
SELECT 'program_rates' AS "table", r.id, r.percent, r.source AS said_by, r.valid_from, r.actor,
       r.valid_from > t.occurred_at AS earliest_known
FROM order_targets(ARRAY[$1::text]) AS t
JOIN program_rates AS r ON r.program_id = t.program_id
ORDER BY r.valid_from > t.occurred_at, CASE WHEN r.valid_from > t.occurred_at THEN r.valid_from END,
         r.valid_from DESC, r.id DESC
LIMIT 1;

-- name: explain_default_rate_of_order
-- The default rate by which an order was judged: that of the order's own time, or else the earliest known.
-- $1 order id
SELECT 'default_rates' AS "table", r.id, r.percent, NULL AS said_by, r.valid_from, r.actor,
       r.valid_from > t.occurred_at AS earliest_known
FROM order_targets(ARRAY[$1::text]) AS t CROSS JOIN default_rates AS r
ORDER BY r.valid_from > t.occurred_at, CASE WHEN r.valid_from > t.occurred_at THEN r.valid_from END,
         r.valid_from DESC, r.id DESC
LIMIT 1;

-- name: explain_link
-- One link, and where it has its partner from.
-- $1 link id
SELECT l.id, l.url, l.pixel_id, l.user_id, l.named_partner_id, l.partner_id,
       CASE WHEN l.partner_id IS NULL THEN NULL
            WHEN l.partner_id = l.named_partner_id THEN 'named_by_link'
            WHEN l.partner_id = u.default_partner_id THEN 'default_of_user'
            ELSE 'by_hand' END AS partner_from,
       l.program_id, l.occurred_at, s.cluster_id, s.topic, s."partition", l.source_offset
FROM links AS l
LEFT JOIN shop_users AS u ON u.id = l.user_id
LEFT JOIN stream_sources AS s ON s.id = l.source_id
WHERE l.id = $1;

-- name: explain_attribution_drift
-- What the stored attribution of an order says otherwise than the order's facts.
-- $1 order id
SELECT v.counter, v.stored, v.counted
FROM order_targets(ARRAY[$1::text]) AS t
FULL JOIN (SELECT * FROM aff_attributions WHERE order_id = $1) AS a ON a.order_id = t.order_id
CROSS JOIN LATERAL (VALUES
  ('attribution', a.order_id, t.order_id),
  ('beneficiary', a.beneficiary, t.beneficiary),
  ('pixel_id', a.pixel_id, t.pixel_id),
  ('link_id', a.link_id, t.link_id),
  ('partner_id', a.partner_id, t.partner_id),
  ('program_id', a.program_id, t.program_id),
  ('currency', a.currency, t.currency),
  ('revenue', a.revenue::text, t.revenue::numeric(20,6)::text),
  ('refunded', a.refunded::text, t.refunded::numeric(20,6)::text),
  ('commission', a.commission::text, t.earnings::numeric(38,6)::text),
  ('reversed', (a.status = 'reversed')::text, (t.order_id IS NOT NULL AND t.canceled_at IS NOT NULL)::text),
  ('occurred_at', a.occurred_at::text, t.occurred_at::text)
) AS v(counter, stored, counted)
WHERE v.stored IS DISTINCT FROM v.counted
ORDER BY v.counter;

-- name: explain_commissions_of_order
-- Every row that was posted for an order, with the sum that it brought its beneficiary to, and its payout.
-- $1 order id
SELECT c.id, c.beneficiary, c.partner_id, c.program_id, c.link_id, c.kind, c.cause, c.origin, c.amount, c.earnings,
       sum(c.earnings) OVER (PARTITION BY c.beneficiary, c.currency ORDER BY c.id) AS running_sum, c.currency,
       currency_digits(c.currency) AS digits, c.rate_percent, c.rate_source, c.status, c.occurred_at, c.earned_at,
       c.posted_at, c.payout_id, p.reference AS payout_reference, p.created_at AS paid_at
FROM commissions AS c LEFT JOIN payouts AS p ON p.id = c.payout_id
WHERE c.order_id = $1
ORDER BY c.id;

-- name: explain_balances_of_order
-- To whom an order owes what by its facts, and what is posted of it.
-- $1 order id
SELECT beneficiary, partner_id, program_id, link_id, currency, currency_digits(currency) AS digits,
       sum(posted_amount) + sum(amount) AS target_amount, sum(posted_amount) AS posted_amount,
       sum(posted_earnings) + sum(earnings) AS target_earnings, sum(posted_earnings) AS posted_earnings,
       bool_and(is_posted) AS posted_is_target
FROM (
  SELECT beneficiary, partner_id, program_id, link_id, currency, amount AS posted_amount, earnings AS posted_earnings,
         0 AS amount, 0 AS earnings, true AS is_posted
  FROM commissions WHERE order_id = $1
  UNION ALL
  SELECT d.beneficiary, d.partner_id, d.program_id, d.link_id, d.currency, 0, 0, d.amount, d.earnings, false
  FROM commission_differences((SELECT coalesce(array_agg(t), '{}') FROM order_targets(ARRAY[$1::text]) AS t), ARRAY[$1]) AS d
) AS signed
GROUP BY beneficiary, partner_id, program_id, link_id, currency
ORDER BY beneficiary, currency, partner_id, program_id, link_id;

-- name: explain_coupon
-- What is stored of a coupon, what its ledgers say of the facts up to a time, and whose it is; each null where it is not known.
-- $1 code, $2 as of
SELECT c.times_used, c.usage_count, c.updated_at, u.usages, u.reversed, a.adjustments, a.adjusted_by,
       o.pixel_id AS owner_pixel_id, f.handle AS owner, o.assigned_at
FROM (SELECT $1::text COLLATE "C" AS code) AS wanted
LEFT JOIN affiliate_coupons AS c ON c.code = wanted.code
LEFT JOIN affiliate_coupon_owners AS o ON o.code = wanted.code
LEFT JOIN affiliates AS f ON f.pixel_id = o.pixel_id
CROSS JOIN (
  SELECT count(*) FILTER (WHERE reversed_at IS NULL OR reversed_at > $2::timestamptz) AS usages,
         count(*) FILTER (WHERE reversed_at <= $2) AS reversed
  FROM affiliate_coupon_usages WHERE code = $1 AND occurred_at <= $2
) AS u
CROSS JOIN (
  SELECT count(*) AS adjustments, coalesce(sum(delta), 0)::bigint AS adjusted_by
  FROM affiliate_coupon_adjustments WHERE code = $1 AND created_at <= $2
) AS a;

-- name: explain_usages_of_coupon
-- A coupon's usages up to a time, newest first, and how each stood then.
-- $1 code, $2 limit, $3 as of
SELECT u.order_id, u.occurred_at, CASE WHEN u.reversed_at <= $3::timestamptz THEN u.reversed_at END AS reversed_at, s.cluster_id, s.topic, s."partition", u.source_offset
FROM affiliate_coupon_usages AS u LEFT JOIN stream_sources AS s ON s.id = u.source_id
WHERE u.code = $1 AND u.occurred_at <= $3
ORDER BY u.occurred_at DESC, u.order_id
LIMIT $2;

-- name: explain_adjustments_of_coupon
-- What operators added to a coupon or took from it up to a time, newest first.
-- $1 code, $2 limit, $3 as of
SELECT id, delta, reason, actor, created_at FROM affiliate_coupon_adjustments
WHERE code = $1 AND created_at <= $3::timestamptz
ORDER BY id DESC LIMIT $2;

-- name: explain_promo
-- What is stored of a promo code, and what its ledgers say of the facts up to a time.
-- $1 code, $2 as of
SELECT p.id, p.times_used, p.use_count, p.total_bonus_issued, p.use_bonus, p.updated_at, u.uses, u.reversed, u.bonus,
       a.adjustments, a.adjusted_by, a.bonus_adjusted_by, u.uses + a.adjusted_by AS counted_times_used,
       u.bonus + a.bonus_adjusted_by AS counted_bonus
FROM promo_codes AS p
CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE reversed_at IS NULL OR reversed_at > $2::timestamptz) AS uses,
         count(*) FILTER (WHERE reversed_at <= $2) AS reversed,
         coalesce(sum(bonus_amount) FILTER (WHERE reversed_at IS NULL OR reversed_at > $2), 0) AS bonus
  FROM promo_code_uses WHERE promo_code_id = p.id AND occurred_at <= $2
) AS u
CROSS JOIN LATERAL (
  SELECT count(*) AS adjustments, coalesce(sum(delta), 0)::bigint AS adjusted_by,
         coalesce(sum(bonus_delta), 0) AS bonus_adjusted_by
  FROM promo_code_adjustments WHERE promo_code_id = p.id AND created_at <= $2
) AS a
WHERE p.code = $1;

-- name: explain_uses_of_promo
-- A promo code's uses up to a time, newest first; those that were written by hand may have no order.
-- $1 promo code id, $2 limit, $3 as of
SELECT u.order_id, u.base_reward, u.bonus_amount, u.total_reward, u.customer_address, u.shop_id, u.occurred_at,
       CASE WHEN u.reversed_at <= $3::timestamptz THEN u.reversed_at END AS reversed_at, s.cluster_id, s.topic, s."partition", u.source_offset
FROM promo_code_uses AS u LEFT JOIN stream_sources AS s ON s.id = u.source_id
WHERE u.promo_code_id = $1 AND u.occurred_at <= $3
ORDER BY u.occurred_at DESC, u.id DESC
LIMIT $2;

-- name: explain_adjustments_of_promo
-- What operators added to a promo code or took from it up to a time, newest first.
-- $1 promo code id, $2 limit, $3 as of
SELECT id, delta, bonus_delta, reason, actor, created_at
FROM promo_code_adjustments WHERE promo_code_id = $1 AND created_at <= $3::timestamptz ORDER BY id DESC LIMIT $2;

-- name: explain_refused_uses_of_promo
-- What was told of a promo code's uses up to a time once more, with another content that does not stand, and how much of it
-- there is.
-- $1 code, $2 limit, $3 as of
SELECT f.topic AS event, f.order_id AS of_what, f.content - 'code' AS content, count(*) OVER () AS total,
       s.cluster_id, s.topic, s."partition", f.source_offset
FROM refused_facts AS f LEFT JOIN stream_sources AS s ON s.id = f.source_id
WHERE f.topic = 'order.placed' AND f.content ->> 'code' = $1
  AND coalesce((f.content ->> 'occurred_at')::timestamptz, '-infinity') <= $3::timestamptz
ORDER BY f.content ->> 'occurred_at' DESC, f.order_id, f.content
LIMIT $2;

-- name: explain_affiliate
-- The affiliate of a handle, or else of a pixel, with the status of a time.
-- $1 handle or pixel, $2 as of
SELECT id, handle, name, CASE WHEN $2::timestamptz = 'infinity' THEN status ELSE coalesce(affiliate_status_at(pixel_id, $2), status) END
         AS status,
       pixel_id, created_at
FROM affiliates
WHERE handle = $1 OR pixel_id = $1
ORDER BY handle = $1 DESC
LIMIT 1;

-- name: explain_whether_pixel_is_known
-- Whether any fact names a pixel, though no affiliate has it.
-- $1 pixel
SELECT EXISTS (SELECT FROM affiliate_daily WHERE pixel_id = $1)
    OR EXISTS (SELECT FROM conversions WHERE pixel_id = $1)
    OR EXISTS (SELECT FROM links WHERE pixel_id = $1)
    OR EXISTS (SELECT FROM affiliate_status_changes WHERE pixel_id = $1)
    OR EXISTS (SELECT FROM affiliate_coupon_owners WHERE pixel_id = $1);

-- name: explain_links_of_pixel
-- A pixel's links as of a time, the one first that stands for conversions which name none, and how many there are.
-- $1 pixel, $2 limit, $3 as of
SELECT l.id, l.url, l.partner_id, l.program_id, l.occurred_at, count(*) OVER () AS total,
       s.cluster_id, s.topic, s."partition", l.source_offset
FROM links AS l LEFT JOIN stream_sources AS s ON s.id = l.source_id
WHERE l.pixel_id = $1 AND l.occurred_at <= $3::timestamptz
ORDER BY l.occurred_at, l.id
LIMIT $2;

-- name: explain_coupons_of_pixel
-- The coupons of a pixel's affiliate, and how often each was used.
-- $1 pixel
SELECT o.code, o.assigned_at, coalesce(c.times_used, 0) AS times_used
FROM affiliate_coupon_owners AS o LEFT JOIN affiliate_coupons AS c ON c.code = o.code
WHERE o.pixel_id = $1
ORDER BY o.code;

-- name: explain_days_of_pixel
-- A pixel's rows in the daily roll-up, of a span that ends today, newest first.
-- $1 pixel, $2 days
SELECT day, currency, CASE WHEN currency = '' THEN 0 ELSE currency_digits(currency) END AS digits, clicks, unique_clicks,
       bot_clicks, conversions, revenue, commission
FROM affiliate_daily
WHERE pixel_id = $1 AND day > counterfoil_today() - $2::integer AND day <= counterfoil_today()
ORDER BY day DESC, currency;

-- name: explain_click_sums_of_pixel
-- A pixel's clicks in a span that ends today, as the daily roll-up shows them and as the ledger and its closings say; and
-- which part of that are closings alone.
-- $1 pixel, $2 days
SELECT d.clicks, d.unique_clicks, d.bot_clicks, c.clicks AS counted_clicks, c.unique_clicks AS counted_unique_clicks,
       c.bot_clicks AS counted_bot_clicks, k.clicks AS closed_clicks, k.unique_clicks AS closed_unique_clicks,
       k.bot_clicks AS closed_bot_clicks
FROM (
  SELECT coalesce(sum(clicks), 0)::bigint AS clicks, coalesce(sum(unique_clicks), 0)::bigint AS unique_clicks,
         coalesce(sum(bot_clicks), 0)::bigint AS bot_clicks
  FROM affiliate_daily
  WHERE pixel_id = $1 AND currency = '' AND day > counterfoil_today() - $2::integer AND day <= counterfoil_today()
) AS d, (
  SELECT coalesce(sum(clicks), 0)::bigint AS clicks, coalesce(sum(unique_clicks), 0)::bigint AS unique_clicks,
         coalesce(sum(bot_clicks), 0)::bigint AS bot_clicks
  FROM click_counts WHERE pixel_id = $1 AND day > counterfoil_today() - $2::integer AND day <= counterfoil_today()
) AS c, (
  SELECT coalesce(sum((sums ->> 'clicks')::bigint), 0)::bigint AS clicks,
         coalesce(sum((sums ->> 'unique_clicks')::bigint), 0)::bigint AS unique_clicks,
         coalesce(sum((sums ->> 'bot_clicks')::bigint), 0)::bigint AS bot_clicks
  FROM ledger_closings
  WHERE ledger = 'aff_clicks' AND key = $1 AND day > counterfoil_today() - $2::integer AND day <= counterfoil_today()
) AS k;

-- name: explain_clicks_of_pixel
-- A pixel's clicks in a span that ends today or with a time, newest first.
-- $1 pixel, $2 days, $3 limit, $4 as of
SELECT c.click_id, c.occurred_at, c.is_bot, c.link_id, c.ip_address, c.user_agent, c.referrer, c.landing_page,
       s.cluster_id, s.topic, s."partition", c.source_offset
FROM aff_clicks AS c LEFT JOIN stream_sources AS s ON s.id = c.source_id
WHERE c.pixel_id = $1
  AND c.occurred_at >= (last_day_at($4::timestamptz) - $2::integer + 1)::timestamp AT TIME ZONE 'UTC'
  AND c.occurred_at < (last_day_at($4) + 1)::timestamp AT TIME ZONE 'UTC'
  AND c.occurred_at <= $4
ORDER BY c.occurred_at DESC, c.click_id
LIMIT $3;

-- name: explain_sums_of_pixel
-- What a pixel brought in a span that ends today, by currency: as the daily roll-up shows it, as the attributions say, and
-- what is posted as commissions for the same orders.
-- $1 pixel, $2 days
WITH attributed AS (
  SELECT * FROM aff_attributions
  WHERE pixel_id = $1
    AND occurred_at >= (counterfoil_today() - $2::integer + 1)::timestamp AT TIME ZONE 'UTC'
    AND occurred_at < (counterfoil_today() + 1)::timestamp AT TIME ZONE 'UTC'
), summed AS (
  SELECT currency, conversions, revenue, commission, 0 AS counted_conversions, 0 AS counted_revenue,
         0 AS counted_commission, 0 AS posted
  FROM affiliate_daily
  WHERE pixel_id = $1 AND currency <> '' AND day > counterfoil_today() - $2::integer AND day <= counterfoil_today()
  UNION ALL
  SELECT currency, 0, 0, 0, 1, revenue, commission, 0 FROM attributed WHERE status <> 'reversed'
  UNION ALL
  SELECT c.currency, 0, 0, 0, 0, 0, 0, c.earnings
  FROM attributed AS a JOIN commissions AS c USING (order_id, beneficiary, currency)
)
SELECT currency, currency_digits(currency) AS digits, sum(conversions)::bigint AS conversions, sum(revenue) AS revenue,
       sum(commission) AS commission, sum(counted_conversions)::bigint AS counted_conversions,
       sum(counted_revenue) AS counted_revenue, sum(counted_commission) AS counted_commission, sum(posted) AS posted
FROM summed
GROUP BY currency
ORDER BY currency;

-- name: explain_drift_of_days
-- Days of a span that ends today on which a pixel's roll-up shows otherwise than the ledgers, though the sums may be right.
-- $1 pixel, $2 days, $3 limit
SELECT v.counter || ' on ' || day AS counter, v.stored::text AS stored, v.counted::text AS counted
FROM (
  SELECT day, currency, sum(clicks) AS clicks, sum(unique_clicks) AS unique_clicks, sum(bot_clicks) AS bot_clicks,
         sum(conversions) AS conversions, sum(revenue) AS revenue, sum(commission) AS commission,
         sum(counted_clicks) AS counted_clicks, sum(counted_unique) AS counted_unique, sum(counted_bots) AS counted_bots,
         sum(counted_conversions) AS counted_conversions, sum(counted_revenue) AS counted_revenue,
         sum(counted_commission) AS counted_commission
  FROM (
    SELECT day, currency, clicks, unique_clicks, bot_clicks, conversions, revenue, commission, 0 AS counted_clicks,
           0 AS counted_unique, 0 AS counted_bots, 0 AS counted_conversions, 0 AS counted_revenue, 0 AS counted_commission
    FROM affiliate_daily WHERE pixel_id = $1
    UNION ALL
    SELECT day, '', 0, 0, 0, 0, 0, 0, clicks, unique_clicks, bot_clicks, 0, 0, 0
    FROM click_counts WHERE pixel_id = $1 AND day > counterfoil_today() - $2::integer AND day <= counterfoil_today()
    UNION ALL
    SELECT (occurred_at AT TIME ZONE 'UTC')::date, currency, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, revenue, commission
    FROM aff_attributions
    WHERE pixel_id = $1 AND status <> 'reversed'
      AND occurred_at >= (counterfoil_today() - $2 + 1)::timestamp AT TIME ZONE 'UTC'
      AND occurred_at < (counterfoil_today() + 1)::timestamp AT TIME ZONE 'UTC'
  ) AS told
  WHERE day > counterfoil_today() - $2 AND day <= counterfoil_today()
  GROUP BY day, currency
) AS d
CROSS JOIN LATERAL (VALUES
  ('clicks', clicks, counted_clicks),
  ('unique_clicks', unique_clicks, counted_unique),
  ('bot_clicks', bot_clicks, counted_bots),
  ('conversions in ' || currency, conversions, counted_conversions),
  ('revenue in ' || currency, revenue, counted_revenue),
  ('commission in ' || currency, commission, counted_commission)
) AS v(counter, stored, counted)
WHERE v.stored <> v.counted
ORDER BY day DESC, v.counter
LIMIT $3;

-- name: explain_drift_of_orders
-- Orders of a span that ends today for which something else is posted than is attributed, though the sums may be the same.
-- $1 pixel, $2 days, $3 limit
SELECT 'posted for order ' || a.order_id AS counter, coalesce(sum(c.earnings), 0)::numeric(38,6)::text AS stored,
       a.commission::numeric(38,6)::text AS counted
FROM aff_attributions AS a
LEFT JOIN commissions AS c ON c.order_id = a.order_id AND c.beneficiary = a.beneficiary AND c.currency = a.currency
WHERE a.pixel_id = $1
  AND a.occurred_at >= (counterfoil_today() - $2::integer + 1)::timestamp AT TIME ZONE 'UTC'
  AND a.occurred_at < (counterfoil_today() + 1)::timestamp AT TIME ZONE 'UTC'
GROUP BY a.order_id, a.commission
HAVING coalesce(sum(c.earnings), 0) <> a.commission
ORDER BY a.order_id
LIMIT $3;

-- name: explain_states_of_pixel
-- A pixel's attributions in a span that ends today, by currency and status.
-- $1 pixel, $2 days
SELECT currency, currency_digits(currency) AS digits, status, count(*) AS orders, sum(revenue) AS revenue,
       sum(refunded) AS refunded, sum(commission) AS commission
FROM aff_attributions
WHERE pixel_id = $1
  AND occurred_at >= (counterfoil_today() - $2::integer + 1)::timestamp AT TIME ZONE 'UTC'
  AND occurred_at < (counterfoil_today() + 1)::timestamp AT TIME ZONE 'UTC'
GROUP BY currency, status
ORDER BY currency, status;

-- name: explain_attributions_of_pixel
-- A pixel's attributions in a span that ends today, newest first.
-- $1 pixel, $2 days, $3 limit
SELECT order_id, origin, code, link_id, program_id, partner_id, revenue, refunded, commission, currency,
       currency_digits(currency) AS digits, rate_percent, rate_source, status, occurred_at
FROM aff_attributions
WHERE pixel_id = $1
  AND occurred_at >= (counterfoil_today() - $2::integer + 1)::timestamp AT TIME ZONE 'UTC'
  AND occurred_at < (counterfoil_today() + 1)::timestamp AT TIME ZONE 'UTC'
ORDER BY occurred_at DESC, order_id
LIMIT $3;

-- name: explain_totals_of_partner
-- How many rows each list of a partner has.
-- $1 partner id
SELECT (SELECT count(*) FROM partner_users WHERE partner_id = $1) AS users,
       (SELECT count(*) FROM links WHERE partner_id = $1) AS links,
       (SELECT count(*) FROM program_enrollments WHERE partner_id = $1) AS enrollments,
       (SELECT count(*) FROM payouts WHERE partner_id = $1) AS payouts,
       (SELECT count(*) FROM commissions WHERE partner_id = $1) AS commissions;

-- name: explain_links_of_partner
-- A partner's links, newest first.
-- $1 partner id, $2 limit
SELECT l.id, l.url, l.user_id, l.pixel_id, l.program_id, l.occurred_at, s.cluster_id, s.topic, s."partition", l.source_offset
FROM links AS l LEFT JOIN stream_sources AS s ON s.id = l.source_id
WHERE l.partner_id = $1
ORDER BY l.occurred_at DESC, l.id
LIMIT $2;

-- name: explain_balances_of_partner
-- What is posted to a partner, by currency and status.
-- $1 partner id
SELECT currency, currency_digits(currency) AS digits, status, count(*) AS commissions, sum(earnings) AS earnings
FROM commissions WHERE partner_id = $1
GROUP BY currency, status
ORDER BY currency, status;

-- name: explain_payouts_of_partner
-- A partner's payouts, newest first, each with the sum of the commissions that it paid.
-- $1 partner id, $2 limit
SELECT p.id, p.amount, p.currency, currency_digits(p.currency) AS digits, p.reference, p.actor, p.created_at,
       coalesce(c.commissions, 0) AS commissions, coalesce(c.counted, 0) AS counted
FROM payouts AS p
LEFT JOIN (
  SELECT payout_id, currency, count(*) AS commissions, sum(earnings) AS counted
  FROM commissions WHERE partner_id = $1 AND status = 'paid' GROUP BY payout_id, currency
) AS c ON c.payout_id = p.id AND c.currency = p.currency
WHERE p.partner_id = $1
ORDER BY p.id DESC
LIMIT $2;

-- name: explain_wrong_payouts_of_partner
-- Those of a partner's payouts that are not the sum of the commissions that they paid, newest first.
-- $1 partner id, $2 limit
SELECT p.id, p.amount, p.currency, currency_digits(p.currency) AS digits, coalesce(c.commissions, 0) AS commissions,
       coalesce(c.counted, 0) AS counted
FROM payouts AS p
LEFT JOIN (
  SELECT payout_id, currency, count(*) AS commissions, sum(earnings) AS counted
  FROM commissions WHERE partner_id = $1 AND status = 'paid' GROUP BY payout_id, currency
) AS c ON c.payout_id = p.id AND c.currency = p.currency
WHERE p.partner_id = $1 AND p.amount <> coalesce(c.counted, 0)
ORDER BY p.id DESC
LIMIT $2;

-- name: explain_commissions_of_partner
-- A partner's commissions, newest first.
-- $1 partner id, $2 limit
SELECT id, order_id, beneficiary, program_id, link_id, kind, cause, amount, earnings, currency,
       currency_digits(currency) AS digits, rate_percent, rate_source, status, occurred_at, posted_at, payout_id
FROM commissions WHERE partner_id = $1
ORDER BY occurred_at DESC, id DESC
LIMIT $2;

-- name: explain_commission
-- One commission, what was posted before it to its beneficiary, and its payout.
-- $1 id
SELECT c.id, c.order_id, c.beneficiary, c.partner_id, c.program_id, c.link_id, c.kind, c.cause, c.origin, c.amount, c.earnings,
       coalesce(before.earnings, 0) AS posted_before, coalesce(before.earnings, 0) + c.earnings AS posted_after,
       c.currency, currency_digits(c.currency) AS digits, c.rate_percent, c.rate_source, c.status, c.occurred_at, c.earned_at,
       c.posted_at, c.payout_id, p.reference AS payout_reference, p.created_at AS paid_at
FROM commissions AS c
LEFT JOIN payouts AS p ON p.id = c.payout_id
LEFT JOIN LATERAL (
  SELECT sum(k.earnings) AS earnings FROM commissions AS k
  WHERE k.order_id = c.order_id AND k.beneficiary = c.beneficiary AND k.currency = c.currency AND k.id < c.id
) AS before ON true
WHERE c.id = CASE WHEN $1 ~ '^[0-9]{1,18}$' THEN $1::bigint END;

-- name: explain_days_of_pixel_at
-- As explain_days_of_pixel, of a span that ends with a time.
-- $1 pixel, $2 days, $3 as of
SELECT day, currency, CASE WHEN currency = '' THEN 0 ELSE currency_digits(currency) END AS digits, clicks, unique_clicks,
       bot_clicks, conversions, revenue, commission
FROM affiliate_days_at(ARRAY[$1::text], (SELECT last_day_at($3::timestamptz) - $2::integer + 1), (SELECT last_day_at($3)), $3)
ORDER BY day DESC, currency;

-- name: explain_attributions_of_pixel_at
-- As explain_attributions_of_pixel, of what stood by a time in a span that ends with it, and how many there were.
-- $1 pixel, $2 days, $3 limit, $4 as of
SELECT order_id, origin, code, link_id, program_id, partner_id, revenue, refunded, earnings AS commission, currency,
       currency_digits(currency) AS digits, rate_percent, rate_source,
       CASE WHEN canceled_at IS NULL THEN 'stands' ELSE 'reversed' END AS status, occurred_at, count(*) OVER () AS total
FROM order_targets_at((
  SELECT array_agg(order_id)
  FROM orders_of_pixels_at(
    ARRAY[$1::text], (last_day_at($4::timestamptz) - $2::integer + 1)::timestamp AT TIME ZONE 'UTC', $4)), $4)
WHERE pixel_id = $1
  AND occurred_at >= (last_day_at($4) - $2 + 1)::timestamp AT TIME ZONE 'UTC'
  AND occurred_at < (last_day_at($4) + 1)::timestamp AT TIME ZONE 'UTC'
ORDER BY occurred_at DESC, order_id
LIMIT $3;

-- name: explain_payouts_of_partner_at
-- A partner's payouts up to a time, newest first, and how many there are.
-- $1 partner id, $2 limit, $3 as of
SELECT id, amount, currency, currency_digits(currency) AS digits, reference, actor, created_at, count(*) OVER () AS total
FROM payouts WHERE partner_id = $1 AND created_at <= $3::timestamptz
ORDER BY id DESC
LIMIT $2;

-- name: explain_links_of_partner_at
-- As explain_links_of_partner, of those that were his by a time, and how many there are.
-- $1 partner id, $2 limit, $3 as of
SELECT l.id, l.url, l.user_id, l.pixel_id, l.program_id, l.occurred_at, count(*) OVER () AS total, s.cluster_id, s.topic,
       s."partition", l.source_offset
FROM links AS l LEFT JOIN stream_sources AS s ON s.id = l.source_id
WHERE l.partner_id = $1 AND l.occurred_at <= $3::timestamptz AND partner_of_link_at(l, $3) = $1
ORDER BY l.occurred_at DESC, l.id
LIMIT $2;

-- name: explain_earnings_of_partner_at
-- What each order had earned a partner by a time, the latest sale first, and how many there are.
-- $1 partner id, $2 limit, $3 as of
SELECT order_id, beneficiary, program_id, link_id, revenue, refunded, amount, earnings, currency,
       currency_digits(currency) AS digits, rate_percent, rate_source, canceled_at, occurred_at, count(*) OVER () AS total
FROM commissions_at((SELECT array_agg(order_id) FROM orders_of_partner_at($1, $3::timestamptz)), $3)
WHERE partner_id = $1
ORDER BY occurred_at DESC, order_id, beneficiary, currency, link_id
LIMIT $2;
