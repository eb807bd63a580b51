-- name: hold_products
-- Make the products that are missing and hold all of these, in one order, before what is counted of them is written.
-- $1 SKUs
SELECT take_products($1::text[]);

-- name: insert_stock_changes
-- Add the stock changes that are not there yet; answers the keys that were added.
-- $1 times, $2 event ids, $3 SKUs, $4 types, $5 old stocks, $6 new stocks, $7 deltas, $8 metadata, $9 names, $10 thresholds,
-- $11 unit prices, $12 suppliers, $13 source ids, $14 source offsets, sorted by key
INSERT INTO inventory_events (occurred_at, event_id, sku, event_type, old_stock, new_stock, quantity_delta, metadata, name,
                              threshold, unit_price, supplier, source_id, source_offset)
SELECT occurred_at, event_id, sku, event_type, old_stock, new_stock, quantity_delta, metadata::jsonb, name, threshold, unit_price,
       supplier, source_id, source_offset
FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[],
            $9::text[], $10::integer[], $11::numeric[], $12::text[], $13::integer[], $14::bigint[])
  AS s(occurred_at, event_id, sku, event_type, old_stock, new_stock, quantity_delta, metadata, name, threshold, unit_price,
       supplier, source_id, source_offset)
ON CONFLICT (occurred_at, event_id) DO NOTHING
RETURNING occurred_at, event_id;

-- name: replace_stock_changes
-- Of two contents of one change the smaller one stands; answers the keys that were replaced. An alert's log does not give way.
-- $1 times, $2 event ids, $3 SKUs, $4 types, $5 old stocks, $6 new stocks, $7 deltas, $8 metadata, $9 names, $10 thresholds,
-- $11 unit prices, $12 suppliers, $13 source ids, $14 source offsets
WITH winning AS (
  SELECT s.*, stock_change_content(e) AS refused, e.sku AS refused_sku, e.source_id AS refused_source_id,
         e.source_offset AS refused_offset
  FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[],
              $9::text[], $10::integer[], $11::numeric[], $12::text[], $13::integer[], $14::bigint[])
    AS s(occurred_at, event_id, sku, event_type, old_stock, new_stock, quantity_delta, metadata, name, threshold, unit_price,
         supplier, source_id, source_offset)
  JOIN inventory_events AS e ON e.occurred_at = s.occurred_at AND e.event_id = s.event_id
  WHERE stock_change_order(ROW(s.event_id, s.occurred_at, s.sku, s.event_type, s.old_stock, s.new_stock, s.quantity_delta,
                               s.metadata, s.name, s.threshold, s.unit_price, s.supplier, NULL, NULL)::inventory_events)
      < stock_change_order(e)
    AND NOT EXISTS (SELECT FROM alerts AS a WHERE a.alert_id = e.event_id)
  ORDER BY e.occurred_at, e.event_id
  FOR NO KEY UPDATE OF e
), kept AS (
  INSERT INTO refused_stock_changes (sku, content, source_id, source_offset)
  SELECT refused_sku, refused, refused_source_id, refused_offset FROM winning
  ON CONFLICT DO NOTHING
)
UPDATE inventory_events AS e
SET sku = w.sku, event_type = w.event_type, old_stock = w.old_stock, new_stock = w.new_stock, quantity_delta = w.quantity_delta,
    metadata = w.metadata::jsonb, name = w.name, threshold = w.threshold, unit_price = w.unit_price, supplier = w.supplier,
    source_id = w.source_id, source_offset = w.source_offset
FROM winning AS w
WHERE e.occurred_at = w.occurred_at AND e.event_id = w.event_id
RETURNING e.occurred_at, e.event_id;

-- name: find_new_stock_changes
-- Of these changes those that are not in the ledger, or there with a content that gives way.
-- $1 times, $2 event ids, $3 SKUs, $4 types, $5 old stocks, $6 new stocks, $7 deltas, $8 metadata, $9 names, $10 thresholds,
-- $11 unit prices, $12 suppliers
SELECT s.occurred_at, s.event_id
FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[],
            $9::text[], $10::integer[], $11::numeric[], $12::text[])
  AS s(occurred_at, event_id, sku, event_type, old_stock, new_stock, quantity_delta, metadata, name, threshold, unit_price,
       supplier)
LEFT JOIN inventory_events AS e ON e.occurred_at = s.occurred_at AND e.event_id = s.event_id
WHERE e.event_id IS NULL
   OR stock_change_order(ROW(s.event_id, s.occurred_at, s.sku, s.event_type, s.old_stock, s.new_stock, s.quantity_delta,
                             s.metadata, s.name, s.threshold, s.unit_price, s.supplier, NULL, NULL)::inventory_events)
    < stock_change_order(e);

-- name: keep_refused_stock_changes
-- Keep those of these changes whose content is not the one that stands; answers those that were not kept before.
-- $1 times, $2 event ids, $3 SKUs, $4 types, $5 old stocks, $6 new stocks, $7 deltas, $8 metadata, $9 names, $10 thresholds,
-- $11 unit prices, $12 suppliers, $13 source ids, $14 source offsets
INSERT INTO refused_stock_changes (sku, content, source_id, source_offset)
SELECT s.sku, content, s.source_id, s.source_offset
FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[],
            $9::text[], $10::integer[], $11::numeric[], $12::text[], $13::integer[], $14::bigint[])
  AS s(occurred_at, event_id, sku, event_type, old_stock, new_stock, quantity_delta, metadata, name, threshold, unit_price,
       supplier, source_id, source_offset)
JOIN inventory_events AS e ON e.occurred_at = s.occurred_at AND e.event_id = s.event_id
CROSS JOIN LATERAL stock_change_content(
  ROW(s.event_id, s.occurred_at, s.sku, s.event_type, s.old_stock, s.new_stock, s.quantity_delta, s.metadata, s.name,
      s.threshold, s.unit_price, s.supplier, s.source_id, s.source_offset)::inventory_events) AS content
WHERE content <> stock_change_content(e)
ON CONFLICT DO NOTHING
RETURNING sku;

-- name: stock_closed_before
-- The time before which the ledger of stock changes is closed.
SELECT closed_before FROM ledger_bounds WHERE ledger = 'inventory_events';

-- name: make_inventory_partitions
-- Make the missing partitions of stock changes; answers those that were made.
-- $1 how many months ahead
SELECT made AS partition FROM make_partitions('inventory_events', $1::integer) AS made;

-- name: close_inventory_partitions
-- Close the months of stock changes that end before a day; answers the partitions that were dropped.
-- $1 a day
SELECT closed AS partition FROM close_inventory_partitions($1::date) AS closed;

-- name: set_default_threshold
-- Set what new products have; answers whether it was another.
-- $1 threshold
UPDATE stock_defaults SET threshold = $1::integer WHERE threshold <> $1::integer RETURNING true;

-- name: raise_low_stock
-- Raise what is to be told of held products after their changes, but for changes that are too old; answers how many alerts.
-- $1 SKUs, $2 times of their last changes, $3 policy, $4 cooldown, $5 what is too old
SELECT count(*)
FROM (SELECT array_agg(sku) AS skus FROM unnest($1::text[], $2::timestamptz[]) AS t(sku, changed_at)
      WHERE changed_at >= clock_timestamp() - $5::interval) AS changed,
     LATERAL raise_low_stock(changed.skus, $3::text, $4::interval);

-- name: raise_low_stock_of
-- Raise what is to be told of held products; answers how many alerts.
-- $1 SKUs, $2 policy, $3 cooldown
SELECT count(*) FROM raise_low_stock($1::text[], $2::text, $3::interval);

-- name: hold_products_to_tell_of
-- Hold the next products of which something is to be told; those that somebody holds are his to tell of.
-- $1 the SKU that they come after, $2 policy, $3 cooldown, $4 how many
SELECT p.sku
FROM inventory_products AS p
WHERE p.sku > $1::text
  AND CASE WHEN $2::text = 'level' THEN
        p.stock < p.threshold
        AND NOT EXISTS (SELECT FROM alert_cooldowns AS c WHERE c.kind = 'low-stock' AND c.cause = p.stock || ':' || p.sku
                          AND c.raised_at > clock_timestamp() - $3::interval)
      WHEN p.stock >= p.threshold THEN
        EXISTS (SELECT FROM low_stock_episodes AS e WHERE e.sku = p.sku)
      ELSE
        NOT EXISTS (SELECT FROM low_stock_episodes AS e WHERE e.sku = p.sku
                      AND (e.told_stock <= 0 OR (p.stock > 0 AND 2 * p.stock > e.told_stock)))
      END
ORDER BY p.sku
LIMIT $4
FOR NO KEY UPDATE OF p SKIP LOCKED;

-- name: still_here
-- Fails where the connection's transaction has been cut.
SELECT 1;

-- name: find_low_stock
-- The products that are low, the lowest share of its threshold first; each row says how many there are in all.
-- $1 how many
SELECT sku, name, stock, threshold, count(*) OVER () AS total
FROM inventory_products
WHERE stock < threshold
ORDER BY stock::float8 / greatest(threshold, 1), sku
LIMIT $1;

-- name: hold_product
-- Hold one product, made when it is missing, so that fresh statements can recount it.
-- $1 SKU
SELECT hold_products(ARRAY[$1::text]);

-- name: recount_product
-- Set a held product to what its ledger and its closing say.
-- $1 SKU
SELECT recount_products(ARRAY[$1::text]);

-- name: drift_of_inventory_products
-- Products whose stock is not what the ledger and its closings say.
SELECT coalesce(p.sku, c.sku) AS key, counter, stored, counted
FROM inventory_products AS p
FULL JOIN inventory_products_counted AS c ON c.sku = p.sku,
LATERAL (VALUES
  ('counted_from', to_char(p.counted_from AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z "') || p.counted_from_event,
   to_char(coalesce(c.counted_from, '-infinity') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z "') || coalesce(c.counted_from_event, '')),
  ('last_restocked', to_char(p.last_restocked AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
   to_char(c.last_restocked AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
  ('stock', p.stock::text, coalesce(c.stock, 0)::text)
) AS compared(counter, stored, counted)
WHERE stored IS DISTINCT FROM counted
ORDER BY 1, 2;

-- name: count_inventory_products
-- How many products are counted.
SELECT count(*) FROM inventory_products;
