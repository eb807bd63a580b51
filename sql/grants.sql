-- The rights of the role `counterfoil_worker`: it reads and adds, marks and counts; it deletes, truncates and defines
-- nothing. `counterfoil migrate` applies this file whenever it made something and the role exists. See docs/security.md.

DO $$
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO counterfoil_worker', current_schema());
END $$;

GRANT SELECT ON counterfoil_migrations TO counterfoil_worker;

GRANT SELECT, INSERT, UPDATE ON
  stream_positions,
  stream_sources,
  dead_letters,
  affiliate_coupons,
  affiliate_coupon_usages,
  promo_codes,
  promo_code_uses,
  order_cancellations,
  idempotency_answers
TO counterfoil_worker;

-- what is only ever added to
GRANT SELECT, INSERT ON
  stream_positions_retired,
  affiliate_coupon_adjustments,
  promo_code_adjustments
TO counterfoil_worker;
