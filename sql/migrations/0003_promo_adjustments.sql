-- Counts that operators add: promo adjustments ("opening balance"), and the answers kept for repeated requests.

-- Every insert into a ledger of promo codes first takes its foreign key's FOR KEY SHARE on the promo code, and two
-- that then both want FOR UPDATE wait for each other. FOR NO KEY UPDATE is what the counting UPDATE takes anyway.
CREATE OR REPLACE FUNCTION add_to_promo_codes(ids bigint[], uses bigint[], bonuses numeric[])
RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM FROM promo_codes WHERE id = ANY (ids) ORDER BY code FOR NO KEY UPDATE;

  UPDATE promo_codes AS p
  SET times_used = p.times_used + d.uses,
      total_bonus_issued = p.total_bonus_issued + d.bonus,
      updated_at = now()
  FROM unnest(ids, uses, bonuses) AS d(id, uses, bonus)
  WHERE p.id = d.id AND (d.uses <> 0 OR d.bonus <> 0);
END $$;

CREATE TABLE promo_code_adjustments (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  promo_code_id    bigint NOT NULL REFERENCES promo_codes (id),
  delta            bigint NOT NULL DEFAULT 0,
  bonus_delta      numeric(20,6) NOT NULL DEFAULT 0,
  reason           text NOT NULL DEFAULT '',
  actor            text NOT NULL DEFAULT current_user,
  created_at       timestamptz NOT NULL DEFAULT now(),
  idempotency_key  text UNIQUE
);

CREATE INDEX promo_code_adjustments_by_promo_code ON promo_code_adjustments (promo_code_id);

COMMENT ON COLUMN promo_codes.times_used IS 'uses that are not reversed + adjustments';
COMMENT ON COLUMN promo_codes.total_bonus_issued IS 'bonuses of the uses that are not reversed + adjustments';

CREATE FUNCTION fold_promo_adjustments_inserted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM add_to_promo_codes(array_agg(id), array_agg(delta), array_agg(bonus))
  FROM (
    SELECT promo_code_id AS id, sum(delta)::bigint AS delta, sum(bonus_delta) AS bonus
    FROM inserted GROUP BY promo_code_id
  ) AS deltas
  HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE FUNCTION fold_promo_adjustments_changed() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM add_to_promo_codes(array_agg(id), array_agg(delta), array_agg(bonus))
  FROM (
    SELECT promo_code_id AS id, sum(delta)::bigint AS delta, sum(bonus_delta) AS bonus
    FROM (
      SELECT promo_code_id, delta, bonus_delta FROM after_change
      UNION ALL
      SELECT promo_code_id, -delta, -bonus_delta FROM before_change
    ) AS signed
    GROUP BY promo_code_id HAVING sum(delta) <> 0 OR sum(bonus_delta) <> 0
  ) AS deltas
  HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE FUNCTION fold_promo_adjustments_deleted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM add_to_promo_codes(array_agg(id), array_agg(delta), array_agg(bonus))
  FROM (
    SELECT promo_code_id AS id, -sum(delta)::bigint AS delta, -sum(bonus_delta) AS bonus
    FROM deleted GROUP BY promo_code_id
  ) AS deltas
  HAVING count(*) > 0;
  RETURN NULL;
END $$;

-- Nothing is left of the truncated ledger: what the promo codes count is the other one.
CREATE OR REPLACE FUNCTION recount_promo_codes_truncated()
RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM FROM promo_codes ORDER BY code FOR NO KEY UPDATE;
  UPDATE promo_codes AS p
  SET times_used = counted.uses, total_bonus_issued = counted.bonus, updated_at = now()
  FROM (
    SELECT k.id, coalesce(sum(l.uses), 0) AS uses, coalesce(sum(l.bonus), 0) AS bonus
    FROM promo_codes AS k
    LEFT JOIN (
      SELECT promo_code_id, 1 AS uses, coalesce(bonus_amount, 0) AS bonus
      FROM promo_code_uses WHERE reversed_at IS NULL
      UNION ALL
      SELECT promo_code_id, delta, bonus_delta FROM promo_code_adjustments
    ) AS l ON l.promo_code_id = k.id
    GROUP BY k.id
  ) AS counted
  WHERE p.id = counted.id AND (p.times_used <> counted.uses OR p.total_bonus_issued <> counted.bonus);
  RETURN NULL;
END $$;

CREATE TRIGGER lock_before_change BEFORE INSERT OR UPDATE OR DELETE ON promo_code_adjustments
  FOR EACH STATEMENT EXECUTE FUNCTION lock_orders_shared();
CREATE TRIGGER fold_inserted AFTER INSERT ON promo_code_adjustments REFERENCING NEW TABLE AS inserted
  FOR EACH STATEMENT EXECUTE FUNCTION fold_promo_adjustments_inserted();
CREATE TRIGGER fold_changed AFTER UPDATE ON promo_code_adjustments
  REFERENCING OLD TABLE AS before_change NEW TABLE AS after_change
  FOR EACH STATEMENT EXECUTE FUNCTION fold_promo_adjustments_changed();
CREATE TRIGGER fold_deleted AFTER DELETE ON promo_code_adjustments REFERENCING OLD TABLE AS deleted
  FOR EACH STATEMENT EXECUTE FUNCTION fold_promo_adjustments_deleted();
CREATE TRIGGER fold_truncated AFTER TRUNCATE ON promo_code_adjustments
  FOR EACH STATEMENT EXECUTE FUNCTION recount_promo_codes_truncated();


-- What a request with an Idempotency-Key was answered: a repeat gets the same, and does nothing.
CREATE TABLE idempotency_answers (
  idempotency_key  text PRIMARY KEY,
  request          text NOT NULL,
  status           smallint,
  answer           text,
  created_at       timestamptz NOT NULL DEFAULT now()
);

COMMENT ON COLUMN idempotency_answers.request IS 'SHA-256 of the request, so that a key used for another one is noticed';
COMMENT ON COLUMN idempotency_answers.status IS 'never null in a committed row: the key is claimed and answered in one transaction';
