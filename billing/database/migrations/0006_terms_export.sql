-- How far the cluster has carried what its groups agreed on into this database. One row for each group.
CREATE TABLE catalog.terms_export (
    group_id     integer     PRIMARY KEY,
    -- Every change of terms that a group accepted before this time is in catalog.campaign_terms.
    complete_to  timestamptz NOT NULL,
    -- A click that is dated further ahead of its arrival is neither counted nor billed.
    max_ahead_ms bigint      NOT NULL CHECK (max_ahead_ms >= 0)
);
