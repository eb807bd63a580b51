-- name: insert_programs
-- Make the programs that are not there yet; answers those that were made.
-- $1 ids, $2 base domains, sorted by base domain
INSERT INTO programs (id, base_domain)
SELECT * FROM unnest($1::text[], $2::text[])
ON CONFLICT DO NOTHING
RETURNING base_domain;

-- name: find_programs
-- The programs of base domains: an imported one may have another id than ours.
-- $1 base domains
SELECT base_domain, id FROM programs WHERE base_domain = ANY ($1::text[]);

-- name: insert_partner_stubs
-- Make the partners that links name and that are not there yet; answers those that were made.
-- $1 ids, sorted
INSERT INTO partners (id)
SELECT * FROM unnest($1::text[])
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: insert_shop_users
-- Add the users that are not there yet; answers those that were added. Triggers give them their partners.
-- $1 ids, $2 names, $3 emails, $4 times, $5 source ids, $6 source offsets, sorted by id
INSERT INTO shop_users (id, name, email, occurred_at, source_id, source_offset)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::integer[], $6::bigint[])
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: move_shop_users_earlier
-- Of two contents the one of the earlier time stands, then the smaller one; answers the users that were replaced.
-- A row that came from no event and names nothing, as a backfill leaves it, gives way to any event.
-- $1 ids, $2 names, $3 emails, $4 times, $5 source ids, $6 source offsets
UPDATE shop_users AS u
SET name = s.name, email = s.email, occurred_at = s.occurred_at,
    source_id = s.source_id, source_offset = s.source_offset
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::integer[], $6::bigint[])
  AS s(id, name, email, occurred_at, source_id, source_offset)
WHERE u.id = s.id
  AND ((u.source_id IS NULL AND u.name IS NULL AND u.email IS NULL)
       OR (s.occurred_at, coalesce(s.name, '') COLLATE "C", coalesce(s.email, '') COLLATE "C")
        < (u.occurred_at, coalesce(u.name, ''), coalesce(u.email, '')))
RETURNING u.id;

-- name: insert_links
-- Add the links that are not there yet; answers those that were added. Triggers give them their user's partner.
-- $1 ids, $2 URLs, $3 user ids, $4 named partners, $5 program ids, $6 pixel ids, $7 times, $8 source ids,
-- $9 source offsets, sorted by id
INSERT INTO links (id, url, user_id, named_partner_id, partner_id, program_id, pixel_id, occurred_at,
                   source_id, source_offset)
SELECT id, url, user_id, named_partner_id, named_partner_id, program_id, pixel_id, occurred_at, source_id, source_offset
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::integer[],
            $9::bigint[])
  AS s(id, url, user_id, named_partner_id, program_id, pixel_id, occurred_at, source_id, source_offset)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: move_links_earlier
-- Of two contents the one of the earlier time stands, then the smaller one; answers the links that were replaced.
-- $1 ids, $2 URLs, $3 user ids, $4 named partners, $5 program ids, $6 pixel ids, $7 times, $8 source ids,
-- $9 source offsets
UPDATE links AS l
SET url = s.url, user_id = s.user_id, named_partner_id = s.named_partner_id, partner_id = s.named_partner_id,
    program_id = s.program_id, pixel_id = s.pixel_id, occurred_at = s.occurred_at,
    source_id = s.source_id, source_offset = s.source_offset
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::integer[],
            $9::bigint[])
  AS s(id, url, user_id, named_partner_id, program_id, pixel_id, occurred_at, source_id, source_offset)
WHERE l.id = s.id
  AND (s.occurred_at, s.url COLLATE "C", coalesce(s.user_id, '') COLLATE "C", coalesce(s.named_partner_id, '') COLLATE "C",
       coalesce(s.pixel_id, '') COLLATE "C")
    < (l.occurred_at, l.url, coalesce(l.user_id, ''), coalesce(l.named_partner_id, ''), coalesce(l.pixel_id, ''))
RETURNING l.id;

-- name: programs_with_due_rates
-- Programs whose rate was never asked for or not of late, with what the service said last, in an order of chance:
-- those that it fails on never stand before the others.
-- $1 how old an answer may be, $2 limit
SELECT p.id, p.base_domain,
       (SELECT r.percent FROM program_rates AS r WHERE r.program_id = p.id AND r.source = 'api'
        ORDER BY r.valid_from DESC, r.id DESC LIMIT 1) AS known
FROM programs AS p
WHERE p.rate_checked_at IS NULL OR p.rate_checked_at < now() - $1::interval
ORDER BY random()
LIMIT $2;

-- name: keep_program_rate
-- Add what the service says of a program, from now on, unless it said the same last; answers null then.
-- $1 program id, $2 percent
SELECT keep_program_rate($1, $2);

-- name: mark_rates_checked
-- Remember when the service was asked about programs.
-- $1 program ids
UPDATE programs AS p SET rate_checked_at = now()
FROM (SELECT id FROM programs WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE) AS held
WHERE p.id = held.id;

-- name: latest_default_rate
-- The default rate that was set last.
SELECT percent FROM default_rates ORDER BY valid_from DESC, id DESC LIMIT 1;

-- name: insert_default_rate
-- Set the default rate from now on, unless it is that already; no row comes back then.
-- $1 percent
INSERT INTO default_rates (percent)
SELECT $1
WHERE $1::numeric IS DISTINCT FROM (SELECT percent FROM default_rates ORDER BY valid_from DESC, id DESC LIMIT 1)
RETURNING id;
