-- name: list_wallet
-- A customer's vouchers, in the order of the wallet, which is the same whatever is left out.
-- $1 customer, $2 status or null for all, $3 limit, $4 offset
SELECT w.voucher_id, v.title, v.business_id, w.status, w.claimed_at, w.redeemed_at, v.expires_at, w.wallet_order,
       w.notification_preferences, w.last_viewed_at, w.metadata
FROM customer_wallets AS w
LEFT JOIN vouchers AS v ON v.id = w.voucher_id
WHERE w.customer_id = $1 AND ($2::text IS NULL OR w.status = $2)
ORDER BY w.wallet_order
LIMIT $3 OFFSET $4;

-- name: find_in_wallet
-- One voucher of a customer's wallet.
-- $1 customer, $2 voucher
SELECT w.voucher_id, v.title, v.business_id, w.status, w.claimed_at, w.redeemed_at, v.expires_at, w.wallet_order,
       w.notification_preferences, w.last_viewed_at, w.metadata
FROM customer_wallets AS w
LEFT JOIN vouchers AS v ON v.id = w.voucher_id
WHERE w.customer_id = $1 AND w.voucher_id = $2;

-- name: change_in_wallet
-- Replace the preferences of a voucher in a wallet, and move the time of its last view: forward, and never beyond now.
-- $1 customer, $2 voucher, $3 preferences or null to keep them, $4 time or null to keep it
UPDATE customer_vouchers
SET notification_preferences = coalesce($3::jsonb, notification_preferences),
    last_viewed_at = CASE WHEN $4::timestamptz IS NULL THEN last_viewed_at
                          ELSE greatest(last_viewed_at, least($4::timestamptz, now())) END
WHERE customer_id = $1 AND voucher_id = $2;

-- name: earlier_claim
-- When a customer has claimed a voucher, where that was at this time or earlier.
-- $1 customer, $2 voucher, $3 time
SELECT claimed_at FROM customer_vouchers WHERE customer_id = $1 AND voucher_id = $2 AND claimed_at <= $3;
