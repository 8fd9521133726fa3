//! The rule that names causes. Pure: one window's facts go in, signed click counts by cause come out.

use std::collections::BTreeMap;

/// Why batch and stream differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Came after the window was final: billed, not counted.
    Late,
    /// A copy dated into another window or named for another ad, which the stream, looking for copies window by
    /// window, counts.
    Duplicate,
    /// Valid to one, invalid to the other.
    Invalid,
    /// Counted, and beyond the budget (campaign scope).
    BudgetCap,
    /// Counted, and without terms (campaign scope).
    UnknownCampaign,
    /// Counted, under terms in a currency since left (campaign scope). Only results of older builds have it: such
    /// clicks are billed in that currency.
    CurrencyChanged,
    /// The window is not final yet: the stream may still count it.
    StreamPending,
    Unexplained,
}

impl Cause {
    pub const ALL: [Cause; 8] = [
        Cause::Late,
        Cause::Duplicate,
        Cause::Invalid,
        Cause::BudgetCap,
        Cause::UnknownCampaign,
        Cause::CurrencyChanged,
        Cause::StreamPending,
        Cause::Unexplained,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Late => "late",
            Cause::Duplicate => "duplicate",
            Cause::Invalid => "invalid",
            Cause::BudgetCap => "budget_cap",
            Cause::UnknownCampaign => "unknown_campaign",
            Cause::CurrencyChanged => "currency_changed",
            Cause::StreamPending => "stream_pending",
            Cause::Unexplained => "unexplained",
        }
    }

    /// The rows of `billing.reconciliation` that count a day's clicks of this cause. Windows show what the stream
    /// missed; what was not billed is known per campaign only.
    pub fn scope(self) -> &'static str {
        match self {
            Cause::BudgetCap | Cause::UnknownCampaign | Cause::CurrencyChanged => "campaign",
            Cause::Late | Cause::Duplicate | Cause::Invalid | Cause::StreamPending | Cause::Unexplained => "ad_minute",
        }
    }
}

/// What is known of one (ad, campaign, minute).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ComparedWindow {
    pub batch_clicks: i64,
    pub batch_invalid: i64,
    pub stream_clicks: i64,
    pub stream_invalid: i64,
    /// Valid clicks the stream put aside as late, and the batch counts from that very record.
    pub late: i64,
    /// Valid copies in this window of clicks whose first copy is elsewhere.
    pub strayed_copies: i64,
    /// The stream will not touch this window again.
    pub is_final: bool,
}

/// Splits `batch_clicks − stream_clicks` by cause; the parts sum to it, none is zero, all have its sign. A cause
/// explains at most as much as its own evidence. An excess of the stream is never pending: windows only grow.
pub fn explain(window: &ComparedWindow) -> BTreeMap<Cause, i64> {
    let mut causes = BTreeMap::new();
    let mut left = window.batch_clicks - window.stream_clicks;
    let mut attribute = |cause, at_most: i64| {
        let part = if left > 0 { left.min(at_most.max(0)) } else { left.max(-at_most.max(0)) };
        if part != 0 {
            causes.insert(cause, part);
            left -= part;
        }
    };
    let is_deficit = window.batch_clicks > window.stream_clicks;
    if is_deficit {
        attribute(Cause::Late, window.late);
        attribute(Cause::Invalid, window.stream_invalid - window.batch_invalid);
        attribute(Cause::StreamPending, if window.is_final { 0 } else { i64::MAX });
    } else {
        attribute(Cause::Duplicate, window.strayed_copies);
        attribute(Cause::Invalid, window.batch_invalid - window.stream_invalid);
    }
    attribute(Cause::Unexplained, i64::MAX);
    assert_eq!(left, 0, "the causes together explain the whole difference");
    causes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lost_click_of_a_final_window_is_unexplained() {
        let cell =
            ComparedWindow { batch_clicks: 10, stream_clicks: 7, late: 2, is_final: true, ..ComparedWindow::default() };
        assert_eq!(explain(&cell), BTreeMap::from([(Cause::Late, 2), (Cause::Unexplained, 1)]));
        let open = ComparedWindow { is_final: false, ..cell };
        assert_eq!(explain(&open), BTreeMap::from([(Cause::Late, 2), (Cause::StreamPending, 1)]));
    }

    #[test]
    fn counting_twice_is_never_pending_nor_late() {
        let cell = ComparedWindow { batch_clicks: 10, stream_clicks: 11, late: 5, ..ComparedWindow::default() };
        assert_eq!(explain(&cell), BTreeMap::from([(Cause::Unexplained, -1)]));
        let strayed = ComparedWindow { strayed_copies: 1, ..cell };
        assert_eq!(explain(&strayed), BTreeMap::from([(Cause::Duplicate, -1)]));
    }

    #[test]
    fn a_verdict_that_differs_is_named() {
        let cell = ComparedWindow {
            batch_clicks: 8,
            batch_invalid: 4,
            stream_clicks: 10,
            stream_invalid: 2,
            ..ComparedWindow::default()
        };
        assert_eq!(explain(&cell), BTreeMap::from([(Cause::Invalid, -2)]));
    }

    proptest! {
        #[test]
        fn the_causes_sum_to_the_difference(
            batch_clicks in 0_i64..50, stream_clicks in 0_i64..50, batch_invalid in 0_i64..9, stream_invalid in 0_i64..9,
            late in 0_i64..9, strayed_copies in 0_i64..9, is_final: bool) {
            let cell = ComparedWindow { batch_clicks, batch_invalid, stream_clicks, stream_invalid, late, strayed_copies, is_final };
            let difference = batch_clicks - stream_clicks;
            let causes = explain(&cell);
            prop_assert_eq!(causes.values().sum::<i64>(), difference);
            prop_assert!(causes.values().all(|part| *part != 0 && (*part > 0) == (difference > 0)));
        }
    }
}
