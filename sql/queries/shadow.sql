-- Rows that are compared: what a table says, without what only tells when or from where it was written.

-- name: compared_affiliate_coupons
-- Coupons that count something.
SELECT code, times_used, usage_count FROM affiliate_coupons WHERE (times_used, usage_count) <> (0, 0);

-- name: compared_promo_codes
-- Promo codes that count something.
SELECT code, times_used, total_bonus_issued, use_count, use_bonus FROM promo_codes
WHERE (times_used, total_bonus_issued, use_count, use_bonus) <> (0, 0, 0, 0);

-- name: compared_promo_code_uses
-- Uses by their promo code, whose id is made in the order of coming; those of no order by their own id.
SELECT p.code, u.order_id, CASE WHEN u.order_id IS NULL THEN u.id END AS id, u.customer_address, u.shop_id, u.base_reward,
       u.bonus_amount, u.total_reward, u.occurred_at, u.reversed_at
FROM promo_code_uses AS u JOIN promo_codes AS p ON p.id = u.promo_code_id;

-- name: compared_affiliate_daily
-- Days of pixels that count something.
SELECT pixel_id, day, currency, clicks, unique_clicks, bot_clicks, conversions, revenue, commission FROM affiliate_daily
WHERE (clicks, unique_clicks, bot_clicks, conversions, revenue, commission) <> (0, 0, 0, 0, 0, 0);

-- name: compared_partners
-- Partners; of those that are a shop user's own what the user's event says of them.
SELECT p.id, CASE WHEN u.id IS NOT NULL THEN p.name END AS name, CASE WHEN u.id IS NOT NULL THEN p.email END AS email
FROM partners AS p
LEFT JOIN shop_users AS u ON p.id = 'pn_' || u.id AND u.id = substr(p.id, 4) AND u.default_partner_id = p.id;

-- name: compared_aff_attributions
-- Attributions; of their status whether they are reversed, the rest of it is set by people and by the clock.
SELECT order_id, pixel_id, link_id, program_id, partner_id, beneficiary, origin, code, revenue, refunded, commission, currency,
       rate_percent, rate_source, status = 'reversed' AS is_reversed, occurred_at
FROM aff_attributions;

-- name: compared_commissions
-- What is posted for each order, beneficiary and currency, as sums, and to which partners.
SELECT order_id, beneficiary, currency, sum(amount) AS amount, sum(earnings) AS earnings,
       array_agg(partner_id ORDER BY partner_id) AS partners
FROM (
  SELECT order_id, beneficiary, currency, partner_id, sum(amount) AS amount, sum(earnings) AS earnings
  FROM commissions GROUP BY 1, 2, 3, 4 HAVING sum(amount) <> 0 OR sum(earnings) <> 0
) AS posted
GROUP BY 1, 2, 3;

-- name: compared_customer_vouchers
-- Wallets: the claim, and what is derived for it; whether a claim has expired is the clock's.
SELECT customer_id, voucher_id, claimed_at, metadata, redeemed_at, first_scanned_at, status = 'REDEEMED' AS is_redeemed
FROM customer_vouchers;

-- name: compared_inventory_events
-- Stock changes, without the log of alerts.
SELECT occurred_at, event_id, sku, event_type, old_stock, new_stock, quantity_delta, metadata, name, threshold, unit_price, supplier
FROM inventory_events WHERE source_id IS NOT NULL OR event_type <> 'low_stock';

-- name: compared_dead_letters
-- Parked records by their identity; whether one is open, and why it was parked, decides what a difference means.
SELECT cluster_id, topic, "partition", "offset", record_timestamp, resolved_at IS NULL AS is_open, error_kind FROM dead_letters;

-- name: partners_by_hand
-- Partners that are no shop user's own.
SELECT p.id, p.name, p.email, p.created_at
FROM partners AS p
WHERE NOT EXISTS (SELECT FROM shop_users AS u WHERE u.id = substr(p.id, 4) AND p.id = 'pn_' || u.id AND u.default_partner_id = p.id);

-- name: ids_of_promo_codes
-- Promo codes with their ids.
SELECT id, code FROM promo_codes;

-- name: closed_ledgers
-- What retention has closed up to when.
SELECT ledger, closed_before FROM ledger_bounds;

-- name: set_closed_ledgers
-- Close ledgers up to other times.
-- $1 ledgers, $2 times
INSERT INTO ledger_bounds (ledger, closed_before)
SELECT * FROM unnest($1::text[], $2::timestamptz[])
ON CONFLICT (ledger) DO UPDATE SET closed_before = excluded.closed_before;

-- name: recount_closed_clicks
-- Count days again that are closed.
SELECT recount_clicks(array_agg(key), array_agg(day)) FROM ledger_closings WHERE ledger = 'aff_clicks' HAVING count(*) > 0;

-- name: recount_closed_scans
-- Count vouchers again of which scans are closed.
SELECT recount_vouchers(array_agg(DISTINCT key)) FROM ledger_closings WHERE ledger = 'voucher_scans' HAVING count(*) > 0;

-- name: recount_closed_stock
-- Count products again of which changes are closed.
SELECT recount_products(array_agg(DISTINCT key)) FROM ledger_closings WHERE ledger = 'inventory_events' HAVING count(*) > 0;

-- name: settle_closed_details
-- Give products the details that closed changes had told, where no other tells of them.
UPDATE inventory_products AS p
SET name = coalesce(CASE WHEN NOT coalesce(told.name, false) THEN d.details ->> 'name' END, p.name),
    threshold = coalesce(CASE WHEN NOT coalesce(told.threshold, false) THEN (d.details ->> 'threshold')::integer END, p.threshold),
    unit_price = coalesce(CASE WHEN NOT coalesce(told.unit_price, false) THEN (d.details ->> 'unit_price')::numeric END, p.unit_price),
    supplier = coalesce(CASE WHEN NOT coalesce(told.supplier, false) THEN d.details ->> 'supplier' END, p.supplier)
FROM (SELECT key, sums -> 'details' AS details FROM ledger_closings WHERE ledger = 'inventory_events') AS d
LEFT JOIN (
  SELECT sku, bool_or(name IS NOT NULL) AS name, bool_or(threshold IS NOT NULL) AS threshold,
         bool_or(unit_price IS NOT NULL) AS unit_price, bool_or(supplier IS NOT NULL) AS supplier
  FROM inventory_events WHERE num_nonnulls(name, threshold, unit_price, supplier) > 0 GROUP BY sku
) AS told ON told.sku = d.key
WHERE p.sku = d.key AND d.details IS NOT NULL;

-- name: vouchers_by_hand
-- Vouchers that nothing is told of.
SELECT v.id FROM vouchers AS v
WHERE num_nonnulls(v.created_at, v.business_id, v.title, v.expires_at, v.source_id) = 0
  AND (v.scan_count, v.claim_count, v.redemption_count, v.impressions) = (0, 0, 0, 0)
  AND NOT EXISTS (SELECT FROM refused_voucher_facts AS r WHERE r.voucher_id = v.id);

-- name: redemptions_by_hand
-- Wallets' redemptions that no attempt tells of.
SELECT c.customer_id, c.voucher_id, c.status, c.redeemed_at
FROM customer_vouchers AS c
WHERE c.status = 'REDEEMED'
  AND NOT EXISTS (SELECT FROM redemption_attempts AS a
                  WHERE a.voucher_id = c.voucher_id AND a.customer_id = c.customer_id AND a.successful);

-- name: preferences_of_wallets
-- What customers have set in their wallets.
SELECT customer_id, voucher_id, notification_preferences, last_viewed_at FROM customer_vouchers
WHERE notification_preferences <> '{}' OR last_viewed_at IS NOT NULL;

-- name: enrollments_by_hand
-- Enrollments that no link speaks for.
SELECT partner_id, program_id, status, origin FROM program_enrollments WHERE origin = 'manual';

-- name: products_by_hand
-- Products that no stock change tells of.
SELECT p.sku, p.name, p.threshold, p.unit_price, p.supplier, p.last_restocked
FROM inventory_products AS p
WHERE NOT EXISTS (SELECT FROM stock_moves AS m WHERE m.sku = p.sku)
  AND NOT EXISTS (SELECT FROM inventory_events AS e WHERE e.sku = p.sku AND e.source_id IS NOT NULL);

-- name: commissions_by_hand
-- Commissions that were imported or written by hand.
SELECT id, partner_id, program_id, link_id, order_id, beneficiary, kind, cause, origin, amount, earnings, rate_percent, rate_source,
       currency, status, occurred_at, earned_at, payout_id, posted_at
FROM commissions WHERE origin = 'manual';

-- name: unread_dead_letters
-- Parked records that were not read now.
-- $1 source ids, $2 the offsets that were read of each
SELECT d.cluster_id, d.topic, d."partition", d."offset", d.record_timestamp, d.error_kind, d.error, d.first_seen_at, d.resolved_at
FROM dead_letters AS d
LEFT JOIN stream_sources AS s ON s.cluster_id = d.cluster_id AND s.topic = d.topic AND s."partition" = d."partition"
WHERE NOT EXISTS (SELECT FROM unnest($1::integer[], $2::text[]) AS k(source_id, offsets)
                  WHERE k.source_id = s.id AND d."offset" <@ k.offsets::int8multirange);

-- name: default_partners
-- Users whose default partner is not their own, or was not at the time.
SELECT id, default_partner_id FROM shop_users WHERE default_partner_id IS NOT NULL;

-- name: partners_of_links
-- Links that name no partner, with one of their user's.
SELECT l.id, l.partner_id FROM links AS l
WHERE l.named_partner_id IS NULL
  AND EXISTS (SELECT FROM partner_users AS u WHERE u.partner_id = l.partner_id AND u.user_id = l.user_id);

-- name: details_of_products
-- What is known of each product besides its stock.
SELECT sku, name, threshold, unit_price, supplier FROM inventory_products;

-- name: closed_scanner_days
-- Who scanned on days that are closed.
SELECT voucher_id, user_id, day, first_at FROM voucher_scanner_days
WHERE day < (SELECT (closed_before AT TIME ZONE 'UTC')::date FROM ledger_bounds WHERE ledger = 'voucher_scans');

-- name: live_positions
-- Where a consumer group stands on a cluster.
-- $1 cluster, $2 consumer group
SELECT topic, "partition", next_offset FROM stream_positions WHERE cluster_id = $1 AND consumer_group = $2;

-- name: replaced_logs
-- Partitions whose log was replaced by another of the same name.
-- $1 cluster, $2 consumer group
SELECT DISTINCT topic, "partition" FROM stream_positions_retired WHERE cluster_id = $1 AND consumer_group = $2 ORDER BY 1, 2;

-- name: earnings_by_partner
-- What is posted in each currency, by partner, or by beneficiary where none is known.
SELECT partner_id, CASE WHEN partner_id IS NULL THEN beneficiary END AS beneficiary, currency,
       round(sum(earnings), greatest(scale(trim_scale(sum(earnings))), currency_digits(currency))) AS earnings
FROM commissions GROUP BY 1, 2, 3;

-- name: compared_earnings
-- What is posted for each order in each currency.
SELECT order_id, currency, sum(earnings) AS earnings FROM commissions GROUP BY 1, 2 HAVING sum(earnings) <> 0;

-- name: find_program_by_name
-- The id of a program, by that or by its base domain.
-- $1 id or base domain
SELECT id FROM programs WHERE id = $1 OR base_domain = $1 ORDER BY id = $1 DESC LIMIT 1;

-- name: last_forgotten_person
-- Up to whom people are forgotten.
SELECT coalesce(max(id), 0) FROM forgotten_people;

-- name: copy_stream_sources
-- Give partitions the same numbers as they have elsewhere.
-- $1 ids, $2 clusters, $3 topics, $4 partitions
INSERT INTO stream_sources (id, cluster_id, topic, "partition") OVERRIDING SYSTEM VALUE
SELECT * FROM unnest($1::integer[], $2::text[], $3::text[], $4::integer[])
ON CONFLICT DO NOTHING;

-- name: list_stream_sources
-- The numbers of partitions.
SELECT id, cluster_id, topic, "partition" FROM stream_sources ORDER BY id;
