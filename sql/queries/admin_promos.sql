-- name: list_promo_codes
-- Promo codes with their counts, the most used first.
-- $1 code or null for all, $2 limit, $3 offset
SELECT id, code, times_used, total_bonus_issued, updated_at
FROM promo_codes
WHERE $1::text IS NULL OR code = $1
ORDER BY times_used DESC, code
LIMIT $2 OFFSET $3;

-- name: find_promo_code
-- One promo code with its counts.
-- $1 code
SELECT id, code, times_used, total_bonus_issued, updated_at FROM promo_codes WHERE code = $1;

-- name: create_promo_code
-- Make one promo code; no row comes back when it is there.
-- $1 code
INSERT INTO promo_codes (code) VALUES ($1) ON CONFLICT (code) DO NOTHING RETURNING id;

-- name: insert_promo_adjustment
-- Add an operator's row to the ledger; its trigger counts it.
-- $1 code, $2 delta, $3 bonus delta, $4 reason, $5 actor, $6 idempotency key or null
INSERT INTO promo_code_adjustments (promo_code_id, delta, bonus_delta, reason, actor, idempotency_key)
SELECT id, $2, $3, $4, $5, $6 FROM promo_codes WHERE code = $1;
