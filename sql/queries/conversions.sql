-- name: insert_conversions
-- Add the conversions that are not there yet; answers the keys that were added.
-- $1 order ids, $2 beneficiaries, $3 times, $4 revenues, $5 commissions, $6 currencies, $7 links, $8 clicks, $9 pixels,
-- $10 source ids, $11 source offsets, sorted by key
INSERT INTO conversions (order_id, beneficiary, occurred_at, revenue, commission, currency, link_id, click_id, pixel_id,
                         source_id, source_offset)
SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::numeric[], $6::text[], $7::text[],
                     $8::text[], $9::text[], $10::integer[], $11::bigint[])
ON CONFLICT (order_id, beneficiary) DO NOTHING
RETURNING order_id, beneficiary;

-- name: replace_conversions
-- Of two contents the one of the earlier time stands, then the smaller one; answers the keys that were replaced.
-- $1 order ids, $2 beneficiaries, $3 times, $4 revenues, $5 commissions, $6 currencies, $7 links, $8 clicks, $9 pixels,
-- $10 source ids, $11 source offsets
WITH winning AS (
  SELECT s.*, conversion_content(c) AS refused, c.source_id AS refused_source_id, c.source_offset AS refused_offset
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::numeric[], $6::text[], $7::text[],
              $8::text[], $9::text[], $10::integer[], $11::bigint[])
    AS s(order_id, beneficiary, occurred_at, revenue, commission, currency, link_id, click_id, pixel_id,
         source_id, source_offset)
  JOIN conversions AS c ON c.order_id = s.order_id AND c.beneficiary = s.beneficiary
  WHERE (s.occurred_at, s.revenue, coalesce(s.commission, -1), s.currency, coalesce(s.link_id, ''), coalesce(s.click_id, ''))
      < (c.occurred_at, c.revenue, coalesce(c.commission, -1), c.currency, coalesce(c.link_id, ''), coalesce(c.click_id, ''))
  ORDER BY c.order_id, c.beneficiary
  FOR UPDATE OF c
), kept AS (
  INSERT INTO refused_facts (order_id, topic, content, source_id, source_offset)
  SELECT order_id, 'conversion', refused, refused_source_id, refused_offset FROM winning
  ON CONFLICT DO NOTHING
)
UPDATE conversions AS c
SET occurred_at = w.occurred_at, revenue = w.revenue, commission = w.commission, currency = w.currency,
    link_id = w.link_id, click_id = w.click_id, source_id = w.source_id, source_offset = w.source_offset
FROM winning AS w
WHERE c.order_id = w.order_id AND c.beneficiary = w.beneficiary
  AND (w.occurred_at, w.revenue, coalesce(w.commission, -1), w.currency, coalesce(w.link_id, ''), coalesce(w.click_id, ''))
    < (c.occurred_at, c.revenue, coalesce(c.commission, -1), c.currency, coalesce(c.link_id, ''), coalesce(c.click_id, ''))
RETURNING c.order_id, c.beneficiary;

-- name: find_new_conversions
-- Of these conversions those that are not in the ledger, or there with a content that gives way.
-- $1 order ids, $2 beneficiaries, $3 times, $4 revenues, $5 commissions, $6 currencies, $7 links, $8 clicks
SELECT s.order_id, s.beneficiary
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::numeric[], $6::text[], $7::text[], $8::text[])
  AS s(order_id, beneficiary, occurred_at, revenue, commission, currency, link_id, click_id)
LEFT JOIN conversions AS c ON c.order_id = s.order_id AND c.beneficiary = s.beneficiary
WHERE c.order_id IS NULL
   OR (s.occurred_at, s.revenue, coalesce(s.commission, -1), s.currency, coalesce(s.link_id, ''), coalesce(s.click_id, ''))
    < (c.occurred_at, c.revenue, coalesce(c.commission, -1), c.currency, coalesce(c.link_id, ''), coalesce(c.click_id, ''));

-- name: keep_refused_conversions
-- Keep those of these conversions whose content is not the one that stands; answers those that were not kept before.
-- $1 order ids, $2 beneficiaries, $3 times, $4 revenues, $5 commissions, $6 currencies, $7 links, $8 clicks, $9 pixels,
-- $10 source ids, $11 source offsets
INSERT INTO refused_facts (order_id, topic, content, source_id, source_offset)
SELECT s.order_id, 'conversion', content, s.source_id, s.source_offset
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::numeric[], $6::text[], $7::text[],
            $8::text[], $9::text[], $10::integer[], $11::bigint[])
  AS s(order_id, beneficiary, occurred_at, revenue, commission, currency, link_id, click_id, pixel_id,
       source_id, source_offset)
JOIN conversions AS c ON c.order_id = s.order_id AND c.beneficiary = s.beneficiary
CROSS JOIN LATERAL conversion_content(
  ROW(s.order_id, s.beneficiary, s.pixel_id, s.link_id, s.revenue, s.commission, s.currency, s.click_id, s.occurred_at,
      s.source_id, s.source_offset)::conversions) AS content
WHERE content <> conversion_content(c)
ON CONFLICT DO NOTHING
RETURNING order_id;
