-- name: list_products
-- Products by SKU.
-- $1 SKU, null for all, $2 whether they are low, null for all, $3 limit, $4 offset
SELECT id, sku, name, stock, threshold, unit_price, supplier, last_restocked
FROM inventory_products
WHERE ($1::text IS NULL OR sku = $1) AND ($2::boolean IS NULL OR (stock < threshold) = $2)
ORDER BY sku
LIMIT $3 OFFSET $4;

-- name: find_product
-- One product, if anything has told of it.
-- $1 SKU
SELECT id, sku, name, stock, threshold, unit_price, supplier, last_restocked
FROM inventory_products
WHERE sku = $1;

-- name: mark_product_created
-- Note that somebody has made a held product; answers nothing where somebody had before.
-- $1 SKU
UPDATE inventory_products SET created_at = clock_timestamp(), updated_at = now()
WHERE sku = $1 AND created_at IS NULL
RETURNING id;

-- name: open_product
-- Write the first count of a product that was made just now, with what is told of it. It is dated at the end of the second
-- before: changes after it may be stamped with whole seconds, and those of this second must not come before it.
-- $1 SKU, $2 stock, null where it was not counted, $3 name, $4 threshold, $5 unit price, $6 supplier
INSERT INTO inventory_events (event_id, occurred_at, sku, event_type, new_stock, quantity_delta, name, threshold, unit_price, supplier)
VALUES ('created:' || gen_random_uuid(), date_trunc('second', clock_timestamp()) - interval '1 microsecond', $1, 'created', $2,
        CASE WHEN $2::bigint IS NULL THEN 0 END, $3, $4, $5, $6);

-- name: list_stock_events
-- Stock changes and alerts of all products, newest first.
-- $1 limit, $2 offset
SELECT event_id, sku, event_type, old_stock, new_stock, quantity_delta, metadata::text, occurred_at
FROM inventory_events
ORDER BY occurred_at DESC, event_id DESC
LIMIT $1 OFFSET $2;

-- name: list_stock_events_of_product
-- Stock changes and alerts of one product, newest first.
-- $1 SKU, $2 limit, $3 offset
SELECT event_id, sku, event_type, old_stock, new_stock, quantity_delta, metadata::text, occurred_at
FROM inventory_events
WHERE sku = $1
ORDER BY occurred_at DESC, event_id DESC
LIMIT $2 OFFSET $3;

-- name: sample_products
-- How many products there are, and how many of them are low.
SELECT count(*) AS products, count(*) FILTER (WHERE stock < threshold) AS low FROM inventory_products;
