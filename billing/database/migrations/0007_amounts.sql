-- Reconciliation compares amounts, too: what stream and batch charge for a campaign's clicks, before budgets.

-- A row for each campaign with clicks on the day. Rewritten by each reconciliation. Amounts are millionths of the
-- currency.
-- batch − stream = counted + terms_changed + what is unexplained, with its sign.
CREATE TABLE billing.reconciled_amount (
    day                  date   NOT NULL,
    campaign_id          bigint NOT NULL,
    -- Null where the catalogue has no terms.
    currency             char(3),
    stream_micros        bigint NOT NULL,
    batch_micros         bigint NOT NULL,
    -- Of batch_micros: what the budget covers.
    billed_micros        bigint NOT NULL,
    -- Clicks that only one side counts.
    counted_micros       bigint NOT NULL,
    -- The same clicks, priced at the time of the click by one side and when they were counted by the other.
    terms_changed_micros bigint NOT NULL,
    -- Excesses and deficits without a cause, which do not cancel.
    unexplained_micros   bigint NOT NULL CHECK (unexplained_micros >= 0),
    PRIMARY KEY (day, campaign_id)
);

-- Campaigns of the day whose amounts differ without a cause.
ALTER TABLE billing.reconciled_day ADD COLUMN unexplained_amounts bigint NOT NULL DEFAULT 0;
