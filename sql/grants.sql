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
  order_refunds,
  order_totals,
  conversions,
  aff_clicks,
  affiliate_daily,
  affiliates,
  shop_users,
  partners,
  partner_users,
  programs,
  program_enrollments,
  links,
  idempotency_answers
TO counterfoil_worker;

-- what is only ever added to
GRANT SELECT, INSERT ON
  stream_positions_retired,
  affiliate_coupon_adjustments,
  promo_code_adjustments,
  affiliate_status_changes,
  program_rates,
  default_rates,
  refused_facts
TO counterfoil_worker;

-- its own transaction's, which is the column's default
GRANT SELECT, INSERT (order_ids) ON settlements_due TO counterfoil_worker;

-- no ledger: whose coupon a code is, now
GRANT SELECT, INSERT, UPDATE, DELETE ON affiliate_coupon_owners TO counterfoil_worker;

-- what settling writes, as the tables' owner, when a fact is committed
GRANT SELECT ON
  currencies,
  order_settlements,
  aff_attributions,
  commissions,
  payouts,
  affiliate_metrics_30d,
  click_counts,
  ledger_bounds,
  ledger_closings,
  deployment_keys,
  aff_clicks_default
TO counterfoil_worker;

GRANT EXECUTE ON FUNCTION
  make_click_partitions(integer),
  close_click_partitions(date),
  hold_orders(text[]),
  settle_orders(text[]),
  hold_daily(text[], date[], text[]),
  drop_empty_daily(text[], date[], text[]),
  approve_commissions(integer),
  pay_commissions(text, text, text, text),
  clear_blanks_of_commissions(text[]),
  find_partners_of_commissions(text[])
TO counterfoil_worker;
