-- name: insert_clicks
-- Add the clicks that are not there yet; answers the keys that were added.
-- $1 click ids, $2 times, $3 pixel ids, $4 link ids, $5 addresses, $6 user agents, $7 referrers, $8 landing pages,
-- $9 visitors, $10 whether each is a bot's, $11 source ids, $12 source offsets, sorted by key
INSERT INTO aff_clicks (click_id, occurred_at, pixel_id, link_id, ip_address, user_agent, referrer, landing_page,
                        visitor, is_bot, source_id, source_offset)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::bigint[], $10::boolean[], $11::integer[], $12::bigint[])
ON CONFLICT (click_id, occurred_at) DO NOTHING
RETURNING click_id, occurred_at;

-- name: find_new_clicks
-- Of these clicks those that are not in the ledger: the first that came stands.
-- $1 click ids, $2 times in microseconds since 2000: each as one text, separated by U+001F
SELECT s.click_id, s.occurred_at
FROM (
  SELECT click_id, timestamptz '2000-01-01Z' + microseconds * interval '1 microsecond' AS occurred_at
  FROM unnest(string_to_array((SELECT $1), E'\x1f'), string_to_array((SELECT $2), E'\x1f')::bigint[]) AS t(click_id, microseconds)
) AS s
LEFT JOIN aff_clicks AS c ON c.click_id = s.click_id AND c.occurred_at = s.occurred_at
WHERE c.click_id IS NULL;

-- name: drift_of_daily_clicks
-- Days of pixels whose stored clicks are not what the ledger and its closings say; a key is the day, a bar, the pixel.
SELECT coalesce(d.day, c.day) || '|' || coalesce(d.pixel_id, c.pixel_id) AS key, counter, stored::text, counted::text
FROM (SELECT * FROM affiliate_daily WHERE currency = '') AS d
FULL JOIN click_counts AS c ON c.pixel_id = d.pixel_id AND c.day = d.day,
LATERAL (VALUES
  ('bot_clicks', d.bot_clicks, coalesce(c.bot_clicks, 0)),
  ('clicks', d.clicks, coalesce(c.clicks, 0)),
  ('unique_clicks', d.unique_clicks, coalesce(c.unique_clicks, 0))
) AS compared(counter, stored, counted)
WHERE stored IS DISTINCT FROM counted
ORDER BY 1, 2;

-- name: lock_daily_clicks
-- Hold one pixel's day, made when it is missing, so that a fresh statement can recount it.
-- $1 the day, a bar, the pixel
INSERT INTO affiliate_daily AS d (day, pixel_id)
VALUES (split_part($1::text, '|', 1)::date, substr($1, strpos($1, '|') + 1))
ON CONFLICT (pixel_id, day, currency) DO UPDATE SET updated_at = d.updated_at;

-- name: recount_daily_clicks
-- Set one held day of a pixel to what the ledger and its closings say.
-- $1 the day, a bar, the pixel
SELECT recount_clicks(ARRAY[substr($1::text, strpos($1, '|') + 1)], ARRAY[split_part($1, '|', 1)::date]);

-- name: count_daily_clicks
-- How many days of pixels there are to verify.
SELECT count(*) FROM affiliate_daily WHERE currency = '';

-- name: clicks_closed_before
-- The time up to which the ledger is closed; no row where it is not.
SELECT closed_before FROM ledger_bounds WHERE ledger = 'aff_clicks';

-- name: visitor_hash_key
-- The key that visitors are hashed with where the settings name none.
SELECT key FROM deployment_keys WHERE name = 'visitor_hash';

-- name: make_click_partitions
-- Make the partitions that clicks will need; answers those that were missing.
-- $1 how many months ahead
SELECT make_click_partitions($1::integer) AS partition;

-- name: close_click_partitions
-- Keep the counts of the months that end before a day, and drop their clicks; answers the partitions that went.
-- $1 the day
SELECT close_click_partitions($1::date) AS partition;

-- name: take_as_long_as_it_takes
-- No statement of this transaction is given up: counting a month may outlast the usual limit.
SELECT set_config('statement_timeout', '0', true);
