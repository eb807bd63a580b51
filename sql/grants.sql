-- The rights of the role `counterfoil_worker`: it reads and adds, marks and counts; it deletes, truncates and defines
-- nothing. `counterfoil migrate` applies this file whenever it made something and the role exists. See docs/security.md.

DO $$
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO counterfoil_worker', current_schema());
END $$;

GRANT SELECT ON counterfoil_migrations TO counterfoil_worker;

-- who is forgotten; forgetting is done by who owns the tables
GRANT SELECT ON forgotten_people, forgotten_visitors TO counterfoil_worker;

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
  voucher_impressions,
  voucher_scans,
  redemption_attempts,
  customer_vouchers,
  inventory_events,
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
  refused_facts,
  refused_voucher_facts,
  refused_stock_changes,
  lost_offsets,
  alerts
TO counterfoil_worker;

-- its own transaction's, which is the column's default
GRANT SELECT, INSERT (order_ids) ON settlements_due TO counterfoil_worker;

-- no ledgers: whose coupon a code is, now; what is to be published; what was told and done of late, and what is usual
GRANT SELECT, INSERT, UPDATE, DELETE ON
  affiliate_coupon_owners,
  alert_cooldowns,
  scan_rates,
  low_stock_episodes
TO counterfoil_worker;
GRANT SELECT, INSERT, DELETE ON outbox, verifications TO counterfoil_worker;
GRANT SELECT, INSERT, UPDATE ON job_turns, notifications, notification_channels TO counterfoil_worker;
GRANT SELECT, INSERT, UPDATE ON replays, replay_positions TO counterfoil_worker;
GRANT SELECT, UPDATE ON stock_defaults TO counterfoil_worker;

-- of a voucher what is told of it; its counts are the triggers' to write
GRANT SELECT, INSERT (id, created_at, business_id, title, expires_at, source_id, source_offset),
      UPDATE (created_at, business_id, title, expires_at, source_id, source_offset, updated_at)
ON vouchers TO counterfoil_worker;

-- of a product that somebody makes, that it is made; all else of it comes of its events
GRANT SELECT, UPDATE (created_at, updated_at) ON inventory_products TO counterfoil_worker;

GRANT SELECT ON
  inventory_products_counted,
  stock_moves,
  inventory_events_default,
  customer_wallets,
  voucher_hourly,
  voucher_places,
  voucher_place_months,
  voucher_scanner_days,
  voucher_returns,
  voucher_daily,
  voucher_counts,
  voucher_hourly_counted,
  voucher_places_counted,
  voucher_place_months_counted,
  voucher_scanner_days_counted,
  voucher_returns_counted,
  voucher_daily_counted,
  customer_vouchers_counted,
  voucher_scans_default,
  partitioned_ledgers
TO counterfoil_worker;

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
  make_partitions(text, integer),
  close_scan_partitions(date),
  close_inventory_partitions(date),
  hold_products(text[]),
  take_products(text[]),
  recount_products(text[]),
  hold_vouchers(text[]),
  recount_vouchers(text[]),
  expire_claims(integer),
  forget_dead_letters(integer, integer),
  hold_orders(text[]),
  settle_orders(text[]),
  hold_daily(text[], date[], text[]),
  drop_empty_daily(text[], date[], text[]),
  approve_commissions(integer),
  pay_commissions(text, text, text, text),
  clear_blanks_of_commissions(text[]),
  find_partners_of_commissions(text[])
TO counterfoil_worker;
