-- name: list_partners
-- Partners by id.
-- $1 limit, $2 offset
SELECT id, name, email, created_at FROM partners ORDER BY id LIMIT $1 OFFSET $2;

-- name: find_partner
-- One partner.
-- $1 id
SELECT id, name, email, created_at FROM partners WHERE id = $1;

-- name: list_users_of_partner
-- The users that a partner stands for, those alone whose names are known.
-- $1 partner id, $2 limit
SELECT r.user_id, u.name, u.email
FROM partner_users AS r LEFT JOIN shop_users AS u ON u.id = r.user_id
WHERE r.partner_id = $1
ORDER BY r.user_id
LIMIT $2;

-- name: list_enrollments_of_partner
-- The programs that a partner is enrolled in.
-- $1 partner id, $2 limit
SELECT e.program_id, p.base_domain, p.commission_percent, e.status, e.origin, e.created_at
FROM program_enrollments AS e LEFT JOIN programs AS p ON p.id = e.program_id
WHERE e.partner_id = $1
ORDER BY e.program_id
LIMIT $2;

-- name: count_links_of_partner
-- How many links are a partner's.
-- $1 partner id
SELECT count(*) FROM links WHERE partner_id = $1;

-- name: balances_of_partner
-- What a partner has earned in each currency, by status.
-- $1 partner id, $2 currency or null for all
SELECT currency, currency_digits(currency) AS digits,
       coalesce(sum(earnings) FILTER (WHERE status = 'pending'), 0) AS pending,
       coalesce(sum(earnings) FILTER (WHERE status = 'approved'), 0) AS approved,
       coalesce(sum(earnings) FILTER (WHERE status = 'paid'), 0) AS paid,
       coalesce(sum(earnings) FILTER (WHERE status = 'canceled'), 0) AS canceled
FROM commissions
WHERE partner_id = $1 AND ($2::text IS NULL OR currency = $2)
GROUP BY currency
ORDER BY currency;

-- name: last_commission_of_partner
-- The highest id among a partner's commissions, so that a long list holds what was there when it began.
-- $1 partner id
SELECT coalesce(max(id), 0) FROM commissions WHERE partner_id = $1;

-- name: list_earnings
-- A partner's commissions, newest first, those alone that the filters leave.
-- $1 partner id, $2 program or null, $3 link or null, $4 order or null, $5 status or null, $6 currency or null,
-- $7 from or null, $8 before or null, $9 time and $10 id of the row to go on after, $11 highest id, $12 limit, $13 offset
SELECT id, order_id, program_id, link_id, kind, cause, amount, earnings, rate_percent, rate_source, currency,
       currency_digits(currency) AS digits, status, occurred_at, payout_id
FROM commissions
WHERE partner_id = $1
  AND ($2::text IS NULL OR program_id = $2)
  AND ($3::text IS NULL OR link_id = $3)
  AND ($4::text IS NULL OR order_id = $4)
  AND ($5::text IS NULL OR status = $5)
  AND ($6::text IS NULL OR currency = $6)
  AND ($7::timestamptz IS NULL OR occurred_at >= $7)
  AND ($8::timestamptz IS NULL OR occurred_at < $8)
  AND (occurred_at, id) < ($9::timestamptz, $10::bigint)
  AND id <= $11
ORDER BY occurred_at DESC, id DESC
LIMIT $12 OFFSET $13;

-- name: group_earnings
-- Sums of a partner's commissions, each in its currency; canceled ones only where they are asked for or told apart.
-- $1 partner id, $2 program or null, $3 link or null, $4 order or null, $5 status or null, $6 currency or null,
-- $7 from or null, $8 before or null, $9 what to group by: program, link, month, status; $10 limit or null, $11 offset
SELECT CASE WHEN 'month' = ANY ($9::text[]) THEN to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM') END AS month,
       CASE WHEN 'program' = ANY ($9) THEN program_id END AS program_id,
       CASE WHEN 'link' = ANY ($9) THEN link_id END AS link_id,
       CASE WHEN 'status' = ANY ($9) THEN status END AS status,
       currency, currency_digits(currency) AS digits, count(*) AS commissions, sum(amount) AS amount,
       sum(earnings) AS earnings
FROM commissions
WHERE partner_id = $1
  AND ($2::text IS NULL OR program_id = $2)
  AND ($3::text IS NULL OR link_id = $3)
  AND ($4::text IS NULL OR order_id = $4)
  AND ($5::text IS NULL OR status = $5)
  AND ($6::text IS NULL OR currency = $6)
  AND ($7::timestamptz IS NULL OR occurred_at >= $7)
  AND ($8::timestamptz IS NULL OR occurred_at < $8)
  AND (status <> 'canceled' OR $5 = 'canceled' OR 'status' = ANY ($9))
GROUP BY 1, 2, 3, 4, currency
ORDER BY 1 DESC NULLS LAST, 2, 3, 4, currency
LIMIT $10 OFFSET $11;

-- name: pay_commissions
-- Mark what is payable as paid; the payout's id, or null where nothing is.
-- $1 partner id, $2 currency, $3 reference, $4 actor
SELECT pay_commissions($1, $2, $3, $4);

-- name: list_payouts
-- A partner's payouts, newest first.
-- $1 partner id, $2 payout id or null for all, $3 limit, $4 offset
SELECT p.id, p.currency, currency_digits(p.currency) AS digits, p.amount, p.reference, p.created_at,
       coalesce(c.count, 0) AS commissions
FROM payouts AS p
LEFT JOIN (
  SELECT payout_id, count(*) AS count FROM commissions WHERE partner_id = $1 AND payout_id IS NOT NULL GROUP BY payout_id
) AS c ON c.payout_id = p.id
WHERE p.partner_id = $1 AND ($2::bigint IS NULL OR p.id = $2)
ORDER BY p.id DESC
LIMIT $3 OFFSET $4;
