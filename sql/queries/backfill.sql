-- name: count_partner_gaps
-- What is without its partner: the numbers that a backfill ends with.
SELECT
  (SELECT count(*) FROM shop_users WHERE coalesce(default_partner_id, '') = '') AS users_without_default_partner,
  (SELECT count(*) FROM links WHERE coalesce(partner_id, '') = '') AS links_without_partner,
  (SELECT count(*) FROM links AS l
   WHERE coalesce(partner_id, '') = '' AND coalesce(named_partner_id, '') = ''
     AND NOT EXISTS (SELECT FROM shop_users AS u WHERE u.id = l.user_id)) AS links_of_unknown_users,
  (SELECT count(*) FROM commissions WHERE partner_id IS NULL) AS commissions_null,
  (SELECT count(*) FROM commissions WHERE partner_id = '') AS commissions_blank,
  (SELECT count(*) FROM commissions AS c
   WHERE partner_id <> '' AND NOT EXISTS (SELECT FROM partners AS p WHERE p.id = c.partner_id)) AS commissions_invalid;

-- name: count_backfill
-- What a backfill has to do.
SELECT
  (SELECT count(*) FROM commissions WHERE '' IN (partner_id, program_id, link_id))
    + (SELECT count(*) FROM links WHERE '' IN (user_id, partner_id, named_partner_id, program_id, pixel_id))
    + (SELECT count(*) FROM shop_users WHERE default_partner_id = '') AS blanks,
  (SELECT count(*) FROM shop_users AS u
   WHERE coalesce(default_partner_id, '') = ''
      OR NOT EXISTS (SELECT FROM partners AS p WHERE p.id = u.default_partner_id)) AS users,
  (SELECT count(DISTINCT user_id) FROM links AS l
   WHERE coalesce(partner_id, '') = '' AND coalesce(named_partner_id, '') = '' AND user_id <> ''
     AND NOT EXISTS (SELECT FROM shop_users AS u WHERE u.id = l.user_id)) AS users_made,
  (SELECT count(*) FROM links
   WHERE coalesce(partner_id, '') = '' AND (user_id <> '' OR named_partner_id <> '')) AS links,
  (SELECT count(DISTINCT named) FROM (SELECT coalesce(nullif(partner_id, ''), named_partner_id) AS named FROM links) AS l
   WHERE named <> '' AND NOT EXISTS (SELECT FROM partners AS p WHERE p.id = l.named)) AS partners_of_links,
  (SELECT count(*) FROM commissions AS c
   LEFT JOIN links AS l ON l.id = c.link_id
   LEFT JOIN LATERAL (
     SELECT f.* FROM links AS f
     WHERE l.id IS NULL AND c.beneficiary LIKE 'pixel:%' AND f.pixel_id = substr(c.beneficiary, 7)
     ORDER BY f.occurred_at, f.id LIMIT 1
   ) AS f ON true
   WHERE coalesce(c.partner_id, '') = ''
     AND '' < concat(l.partner_id, l.named_partner_id, l.user_id, f.partner_id, f.named_partner_id, f.user_id)
  ) AS commissions;

-- name: orders_with_blank_commissions
-- Orders that have commissions with a blank instead of null.
-- $1 order to go on after, $2 limit
SELECT DISTINCT order_id FROM commissions
WHERE order_id > $1 AND '' IN (partner_id, program_id, link_id)
ORDER BY order_id LIMIT $2;

-- name: clear_blanks_of_commissions
-- Make blanks null in the commissions of some orders.
-- $1 orders
SELECT clear_blanks_of_commissions($1);

-- name: clear_blanks_of_links
-- Make blanks null in some links; answers how many. A trigger finds the partner.
-- $1 limit
WITH cleared AS (
  UPDATE links AS l
  SET user_id = nullif(user_id, ''), partner_id = nullif(partner_id, ''), named_partner_id = nullif(named_partner_id, ''),
      program_id = nullif(program_id, ''), pixel_id = nullif(pixel_id, '')
  FROM (SELECT id FROM links WHERE '' IN (user_id, partner_id, named_partner_id, program_id, pixel_id) ORDER BY id LIMIT $1)
    AS blank
  WHERE l.id = blank.id
  RETURNING l.id
)
SELECT count(*) FROM cleared;

-- name: clear_blanks_of_users
-- Make blanks null in some users; answers how many. A trigger finds the default partner.
-- $1 limit
WITH cleared AS (
  UPDATE shop_users AS u SET default_partner_id = NULL
  FROM (SELECT id FROM shop_users WHERE default_partner_id = '' ORDER BY id LIMIT $1) AS blank
  WHERE u.id = blank.id
  RETURNING u.id
)
SELECT count(*) FROM cleared;

-- name: users_without_partner
-- Users without a default partner, or whose default partner is not there.
-- $1 user to go on after, $2 limit
SELECT id FROM shop_users AS u
WHERE id > $1
  AND (default_partner_id IS NULL OR NOT EXISTS (SELECT FROM partners AS p WHERE p.id = u.default_partner_id))
ORDER BY id LIMIT $2;

-- name: touch_users
-- Let the triggers give users their partners; answers how many there were.
-- $1 users, sorted
WITH touched AS (
  UPDATE shop_users SET default_partner_id = default_partner_id WHERE id = ANY ($1::text[]) RETURNING id
)
SELECT count(*) FROM touched;

-- name: unknown_users_of_links
-- Users whom nothing is known of but their links, with the time of the first; links alone that have no partner.
-- $1 user to go on after, $2 limit
SELECT user_id, min(occurred_at) AS occurred_at FROM links AS l
WHERE user_id > $1 AND partner_id IS NULL AND NOT EXISTS (SELECT FROM shop_users AS u WHERE u.id = l.user_id)
GROUP BY user_id
ORDER BY user_id LIMIT $2;

-- name: insert_unknown_users
-- Make users who are not there yet; answers how many. Triggers give them and their links partners. What an event says of
-- such a user later takes the row's place.
-- $1 ids, $2 times, sorted by id
WITH made AS (
  INSERT INTO shop_users (id, occurred_at)
  SELECT * FROM unnest($1::text[], $2::timestamptz[])
  ON CONFLICT (id) DO NOTHING
  RETURNING id
)
SELECT count(*) FROM made;

-- name: count_links_waiting
-- How many links without partner these users have.
-- $1 users
SELECT count(*) FROM links WHERE user_id = ANY ($1::text[]) AND partner_id IS NULL;

-- name: links_waiting
-- Links without partner that name one or a user who is known.
-- $1 link to go on after, $2 limit
SELECT id FROM links AS l
WHERE id > $1 AND partner_id IS NULL
  AND (named_partner_id IS NOT NULL OR EXISTS (SELECT FROM shop_users AS u WHERE u.id = l.user_id))
ORDER BY id LIMIT $2;

-- name: touch_links
-- Let the trigger find the partners of links; answers how many got theirs.
-- $1 links, sorted
WITH touched AS (
  UPDATE links SET partner_id = partner_id WHERE id = ANY ($1::text[]) AND partner_id IS NULL RETURNING partner_id
)
SELECT count(partner_id) FROM touched;

-- name: missing_partners_of_links
-- Partners that links name and that are not there.
-- $1 partner to go on after, $2 limit
SELECT DISTINCT partner_id FROM links AS l
WHERE partner_id > $1 AND NOT EXISTS (SELECT FROM partners AS p WHERE p.id = l.partner_id)
ORDER BY partner_id LIMIT $2;

-- name: links_without_program
-- Links of no program, with their URLs.
-- $1 link to go on after, $2 limit
SELECT id, url FROM links WHERE id > $1 AND coalesce(program_id, '') = '' ORDER BY id LIMIT $2;

-- name: set_programs_of_links
-- Give links the programs of their URLs; answers how many.
-- $1 links, $2 their URLs as they were read, $3 program ids
WITH given AS (
  UPDATE links AS l SET program_id = s.program_id
  FROM unnest($1::text[], $2::text[], $3::text[]) AS s(id, url, program_id)
  WHERE l.id = s.id AND l.url = s.url AND l.program_id IS NULL
  RETURNING l.id
)
SELECT count(*) FROM given;

-- name: orders_without_partner
-- Orders that have commissions without partner whose link, or pixel's first link, has one.
-- $1 order to go on after, $2 limit
SELECT DISTINCT c.order_id
FROM commissions AS c
LEFT JOIN links AS l ON l.id = c.link_id
CROSS JOIN LATERAL (
  SELECT coalesce(l.partner_id, (
    SELECT f.partner_id FROM links AS f
    WHERE l.id IS NULL AND c.beneficiary LIKE 'pixel:%' AND f.pixel_id = substr(c.beneficiary, 7)
    ORDER BY f.occurred_at, f.id LIMIT 1)) AS partner_id
) AS p
WHERE c.order_id > $1 AND c.partner_id IS NULL AND p.partner_id IS NOT NULL
ORDER BY c.order_id LIMIT $2;

-- name: find_partners_of_commissions
-- Give the commissions of some orders the partners of their links; answers how many rows.
-- $1 orders
SELECT find_partners_of_commissions($1);

-- name: missing_constraints_of_partners
-- The constraints that forbid blanks where a partner hangs on them, those alone that are missing or were never checked,
-- each with the line that mends it.
SELECT format('%s.%s_not_blank', c.table_name, c.column_name) AS "constraint", k.conname IS NOT NULL AS is_there,
       CASE WHEN k.conname IS NULL
            THEN format('ALTER TABLE %I.%I ADD CONSTRAINT %I CHECK (%I <> '''') NOT VALID',
                        current_schema(), c.table_name, c.column_name || '_not_blank', c.column_name)
            ELSE format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', current_schema(), c.table_name, k.conname) END AS line
FROM (VALUES
  (1, 'shop_users', 'default_partner_id'),
  (2, 'links', 'user_id'),
  (3, 'links', 'partner_id'),
  (4, 'links', 'program_id'),
  (5, 'commissions', 'partner_id'),
  (6, 'commissions', 'program_id'),
  (7, 'commissions', 'link_id')
) AS c(place, table_name, column_name)
LEFT JOIN pg_constraint AS k
  ON k.conrelid = to_regclass(format('%I.%I', current_schema(), c.table_name)) AND k.conname = c.column_name || '_not_blank'
WHERE k.conname IS NULL OR NOT k.convalidated
ORDER BY c.place;
