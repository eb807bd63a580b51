-- name: list_affiliate_coupons
-- Coupons with their counts, the most used first.
-- $1 code or null for all, $2 limit, $3 offset
SELECT code, times_used, updated_at
FROM affiliate_coupons
WHERE $1::text IS NULL OR code = $1
ORDER BY times_used DESC, code
LIMIT $2 OFFSET $3;

-- name: find_affiliate_coupon
-- One coupon with its count.
-- $1 code
SELECT code, times_used, updated_at FROM affiliate_coupons WHERE code = $1;

-- name: insert_coupon_adjustment
-- Add an operator's row to the ledger; its trigger counts it and holds the coupon's row until the end of the transaction.
-- $1 code, $2 delta, $3 reason, $4 actor, $5 idempotency key or null
INSERT INTO affiliate_coupon_adjustments (code, delta, reason, actor, idempotency_key)
VALUES ($1, $2, $3, $4, $5);
