-- The batch's results, the ledger and the invoices. Amounts are millionths of a currency.

-- One run of the batch over a day of event time (UTC). Revision 1 becomes the day's invoices; later ones adjust them.
CREATE TABLE billing.batch_run (
    day                  date     NOT NULL,
    revision             integer  NOT NULL CHECK (revision > 0),
    state                text     NOT NULL CHECK (state IN ('draft', 'final')),
    -- Over the lines "file sha256" of every file read, in order of file: which raw bytes this was computed from.
    manifest_sha256      char(64) NOT NULL,
    files                text[]   NOT NULL,
    rows_read            bigint   NOT NULL,
    unique_valid_clicks  bigint   NOT NULL,
    invalid_clicks       bigint   NOT NULL,
    duplicates           bigint   NOT NULL,
    -- Duplicates that disagree with the first copy in what billing looks at; the first log offset wins.
    conflicts            bigint   NOT NULL,
    quarantined          bigint   NOT NULL,
    misrouted            bigint   NOT NULL,
    malformed            bigint   NOT NULL,
    computed_at          timestamptz NOT NULL,
    PRIMARY KEY (day, revision)
);

-- The newest run's view of each window, replaced as a whole: reports read it where it exists.
CREATE TABLE billing.batch_ad_minute (
    minute         timestamptz NOT NULL,
    ad_id          bigint NOT NULL,
    campaign_id    bigint NOT NULL,
    clicks         bigint NOT NULL,
    invalid_clicks bigint NOT NULL,
    duplicates     bigint NOT NULL,
    -- Valid later copies of a click whose first copy lies in another window or another ad.
    strayed_copies bigint NOT NULL,
    PRIMARY KEY (minute, ad_id, campaign_id)
);

-- The newest run's result for each campaign and the terms its clicks fell under, billable or not.
CREATE TABLE billing.batch_campaign_day (
    day            date   NOT NULL,
    campaign_id    bigint NOT NULL,
    -- 0 where the catalogue knows no terms.
    terms_revision bigint NOT NULL,
    advertiser_id  bigint,
    currency       char(3),
    price_micros   bigint,
    clicks         bigint NOT NULL,
    invalid_clicks bigint NOT NULL,
    billed_clicks  bigint NOT NULL,
    amount_micros  bigint NOT NULL,
    -- Why clicks − billed_clicks are not billed; null where they all are.
    unbilled_cause text CHECK (unbilled_cause IN ('budget_cap', 'unknown_campaign', 'currency_changed')),
    PRIMARY KEY (day, campaign_id, terms_revision),
    CHECK (billed_clicks BETWEEN 0 AND clicks),
    CHECK ((unbilled_cause IS NULL) = (billed_clicks = clicks))
);

CREATE TABLE billing.invoice (
    invoice_id    text    PRIMARY KEY,
    day           date    NOT NULL,
    revision      integer NOT NULL,
    advertiser_id bigint  NOT NULL,
    currency      char(3) NOT NULL,
    kind          text    NOT NULL CHECK (kind IN ('invoice', 'debit_memo', 'credit_memo')),
    state         text    NOT NULL CHECK (state IN ('draft', 'final')),
    amount_micros bigint  NOT NULL,
    finalized_at  timestamptz,
    UNIQUE (day, revision, advertiser_id, currency),
    FOREIGN KEY (day, revision) REFERENCES billing.batch_run,
    CHECK ((kind = 'invoice') = (revision = 1)),
    CHECK (kind <> 'credit_memo' OR amount_micros < 0),
    CHECK (kind = 'credit_memo' OR amount_micros >= 0),
    CHECK ((state = 'final') = (finalized_at IS NOT NULL))
);

CREATE TABLE billing.invoice_line (
    invoice_id      text     NOT NULL REFERENCES billing.invoice ON DELETE CASCADE,
    line            integer  NOT NULL,
    campaign_id     bigint   NOT NULL,
    campaign_name   text     NOT NULL,
    terms_revision  bigint   NOT NULL,
    clicks          bigint   NOT NULL,
    price_micros    bigint   NOT NULL,
    amount_micros   bigint   NOT NULL,
    -- Valid clicks given away because the budget was spent.
    unbilled_clicks bigint   NOT NULL,
    manifest_sha256 char(64) NOT NULL,
    PRIMARY KEY (invoice_id, line),
    UNIQUE (invoice_id, campaign_id, terms_revision),
    CHECK (amount_micros::numeric = clicks::numeric * price_micros)
);
CREATE INDEX invoice_line_campaign ON billing.invoice_line (campaign_id);

-- Double entry: debits positive, credits negative; an invoice is one transaction.
CREATE TABLE billing.ledger_entry (
    transaction_id text     NOT NULL REFERENCES billing.invoice ON DELETE CASCADE,
    entry          smallint NOT NULL,
    account        text     NOT NULL CHECK (account IN ('advertiser_receivable', 'click_revenue')),
    advertiser_id  bigint   NOT NULL,
    currency       char(3)  NOT NULL,
    amount_micros  bigint   NOT NULL CHECK (amount_micros <> 0),
    PRIMARY KEY (transaction_id, entry)
);

-- Differences between the stream's and the batch's view of a day, each with its cause. Rewritten by each reconciliation.
CREATE TABLE billing.reconciliation (
    day           date        NOT NULL,
    -- 'ad_minute': one window of one ad, counted clicks; 'campaign': a whole campaign-day, billed clicks (ad 0, midnight).
    scope         text        NOT NULL CHECK (scope IN ('ad_minute', 'campaign')),
    campaign_id   bigint      NOT NULL,
    ad_id         bigint      NOT NULL,
    minute        timestamptz NOT NULL,
    cause         text        NOT NULL CHECK (cause IN ('late', 'duplicate', 'invalid', 'budget_cap', 'unknown_campaign',
                                                        'currency_changed', 'stream_pending', 'unexplained')),
    stream_clicks bigint      NOT NULL,
    batch_clicks  bigint      NOT NULL,
    -- The batch's side minus the stream's, as far as this cause explains it.
    clicks        bigint      NOT NULL CHECK (clicks <> 0),
    PRIMARY KEY (day, scope, campaign_id, ad_id, minute, cause)
);

-- A ledger transaction sums to zero per currency: checked when it commits, whoever wrote it.
CREATE FUNCTION billing.require_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    checked text := coalesce(NEW.transaction_id, OLD.transaction_id);
    unbalanced text;
BEGIN
    SELECT currency INTO unbalanced FROM billing.ledger_entry
        WHERE transaction_id = checked GROUP BY currency HAVING sum(amount_micros) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'ledger transaction % does not sum to zero in %', checked, unbalanced
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER balanced AFTER INSERT OR UPDATE OR DELETE ON billing.ledger_entry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing.require_balance();

-- What is finalised stays: the only way to change it is another document.
CREATE FUNCTION billing.refuse_change_of_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'final' THEN
        RAISE EXCEPTION '% of day % revision % is finalised', TG_TABLE_NAME, OLD.day, OLD.revision
            USING ERRCODE = 'restrict_violation', HINT = 'run the batch again: it writes a memo of the difference';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;

CREATE TRIGGER final_is_immutable BEFORE UPDATE OR DELETE ON billing.batch_run
    FOR EACH ROW EXECUTE FUNCTION billing.refuse_change_of_final();
CREATE TRIGGER final_is_immutable BEFORE UPDATE OR DELETE ON billing.invoice
    FOR EACH ROW EXECUTE FUNCTION billing.refuse_change_of_final();

CREATE FUNCTION billing.refuse_change_of_final_part() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    documents text[];
    frozen text;
BEGIN
    IF TG_TABLE_NAME = 'invoice_line' THEN
        documents := CASE TG_OP WHEN 'INSERT' THEN ARRAY[NEW.invoice_id] WHEN 'DELETE' THEN ARRAY[OLD.invoice_id]
                     ELSE ARRAY[OLD.invoice_id, NEW.invoice_id] END;
    ELSE
        documents := CASE TG_OP WHEN 'INSERT' THEN ARRAY[NEW.transaction_id] WHEN 'DELETE' THEN ARRAY[OLD.transaction_id]
                     ELSE ARRAY[OLD.transaction_id, NEW.transaction_id] END;
    END IF;
    SELECT invoice_id INTO frozen FROM billing.invoice WHERE invoice_id = ANY (documents) AND state = 'final' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% of finalised document % cannot change', TG_TABLE_NAME, frozen
            USING ERRCODE = 'restrict_violation', HINT = 'run the batch again: it writes a memo of the difference';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;

CREATE TRIGGER final_is_immutable BEFORE INSERT OR UPDATE OR DELETE ON billing.invoice_line
    FOR EACH ROW EXECUTE FUNCTION billing.refuse_change_of_final_part();
CREATE TRIGGER final_is_immutable BEFORE INSERT OR UPDATE OR DELETE ON billing.ledger_entry
    FOR EACH ROW EXECUTE FUNCTION billing.refuse_change_of_final_part();

CREATE TRIGGER never_truncated BEFORE TRUNCATE ON billing.invoice
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON billing.invoice_line
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON billing.ledger_entry
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change();
