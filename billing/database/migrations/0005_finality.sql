-- What must hold before a day is finalised, who overrode it, and when the ledger is posted.

-- Over the run's files, its clicks, and what is billed for them. A run of a finalised day that gives the same again is
-- not recorded. Null in runs of earlier builds.
ALTER TABLE billing.batch_run ADD COLUMN bill_sha256 char(64);

-- The last reconciliation of each day, and the run that it compared. It says nothing about any other run.
CREATE TABLE billing.reconciled_day (
    day           date        PRIMARY KEY,
    revision      integer     NOT NULL,
    bill_sha256 char(64),
    batch_clicks  bigint      NOT NULL,
    stream_clicks bigint      NOT NULL,
    billed_clicks bigint      NOT NULL,
    unexplained   bigint      NOT NULL,
    -- More is unexplained than the limit.
    pages         boolean     NOT NULL,
    reconciled_at timestamptz NOT NULL DEFAULT now()
);

-- Each finalisation of a run. Where a check was overridden: which one, by whom and why.
CREATE TABLE billing.finalisation (
    day           date        NOT NULL,
    revision      integer     NOT NULL,
    finalized_at  timestamptz NOT NULL,
    documents     bigint      NOT NULL,
    -- The checks that failed; empty where all held.
    overridden    text[]      NOT NULL,
    overridden_by text,
    reason        text,
    PRIMARY KEY (day, revision),
    FOREIGN KEY (day, revision) REFERENCES billing.batch_run,
    CHECK (cardinality(overridden) = 0 OR (overridden_by IS NOT NULL AND reason IS NOT NULL)),
    CHECK (length(trim(overridden_by)) > 0 AND length(trim(reason)) > 0)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.finalisation
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse_change();

-- The ledger is posted when a document becomes final. Earlier builds posted drafts, too.
DELETE FROM billing.ledger_entry WHERE transaction_id IN (SELECT invoice_id FROM billing.invoice WHERE state = 'draft');

CREATE FUNCTION billing.require_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM billing.invoice WHERE invoice_id = NEW.transaction_id AND state = 'draft') THEN
        RAISE EXCEPTION 'document % is a draft, and the ledger has final documents only', NEW.transaction_id
            USING ERRCODE = 'integrity_constraint_violation', HINT = 'finalise the day: that posts its documents';
    END IF;
    RETURN NULL;
END $$;

-- Checked at commit, because a document cannot get entries once it is final.
CREATE CONSTRAINT TRIGGER posted_when_final AFTER INSERT ON billing.ledger_entry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing.require_final();
