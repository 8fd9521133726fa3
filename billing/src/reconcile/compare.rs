//! The day's differences by cause: first window by window, then for whole campaigns against what is billed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use clicktally_database::billing::{DifferingWindow, NewDifference};
use clicktally_proto::event_time::Minute;

use super::explain::{Cause, ComparedWindow, explain};
use super::final_before::FinalBefore;
use crate::error::BillingError;

/// (Campaign, ad, minute).
pub type WindowKey = (i64, i64, Minute);

/// Clicks of a campaign that were counted and not billed, by cause.
pub type UnbilledClicks = (i64, String, i64);

/// `late`: the valid clicks that the batch counts from the very records the stream declared late.
pub(super) fn window_differences(
    windows: &[DifferingWindow],
    late: &BTreeMap<WindowKey, i64>,
    final_before: &FinalBefore,
) -> Vec<NewDifference> {
    let mut differences = Vec::new();
    for window in windows {
        let is_passed = final_before.covers(window.campaign_id.cast_unsigned(), window.minute);
        let compared = ComparedWindow {
            batch_clicks: window.batch_clicks,
            batch_invalid: window.batch_invalid,
            stream_clicks: window.stream_clicks,
            stream_invalid: window.stream_invalid,
            late: late.get(&(window.campaign_id, window.ad_id, window.minute)).copied().unwrap_or(0),
            strayed_copies: window.strayed_copies,
            is_final: window.is_marked_final || is_passed,
        };
        differences.extend(explain(&compared).into_iter().map(|(cause, clicks)| NewDifference {
            campaign_id: window.campaign_id,
            window: Some((window.ad_id, window.minute)),
            cause: cause.as_str(),
            stream_clicks: window.stream_clicks,
            batch_clicks: window.batch_clicks,
            clicks,
        }));
    }
    differences
}

/// The campaigns that [`campaign_differences`] needs totals of, each once.
pub fn campaigns_that_differ(windows: &[DifferingWindow], unbilled: &[UnbilledClicks]) -> Vec<i64> {
    let campaigns = windows.iter().map(|window| window.campaign_id);
    let campaigns: BTreeSet<i64> = campaigns.chain(unbilled.iter().map(|(campaign_id, ..)| *campaign_id)).collect();
    campaigns.into_iter().collect()
}

/// Sums the windows' causes by campaign, and adds what was counted but not billed. `totals`: (stream clicks, billed
/// clicks) by campaign.
pub(super) fn campaign_differences(
    windows: &[NewDifference],
    unbilled: &[UnbilledClicks],
    totals: &BTreeMap<i64, (i64, i64)>,
) -> Result<Vec<NewDifference>, BillingError> {
    assert!(windows.iter().all(|d| d.window.is_some()), "campaigns are summed from windows alone");
    let mut causes: BTreeMap<i64, BTreeMap<Cause, i64>> = BTreeMap::new();
    for window in windows {
        let sum = causes.entry(window.campaign_id).or_default().entry(cause_named(window.cause)).or_insert(0);
        *sum = sum.checked_add(window.clicks).ok_or(BillingError::Overflow("a campaign's difference"))?;
    }
    for (campaign_id, cause, clicks) in unbilled {
        let sum = causes.entry(*campaign_id).or_default().entry(cause_named(cause)).or_insert(0);
        *sum = sum.checked_sub(*clicks).ok_or(BillingError::Overflow("a campaign's difference"))?;
    }
    let mut differences = Vec::new();
    for (campaign_id, causes) in causes {
        let (stream_clicks, batch_clicks) = totals.get(&campaign_id).copied().unwrap_or_default();
        differences.extend(causes.into_iter().filter(|(_, clicks)| *clicks != 0).map(|(cause, clicks)| {
            NewDifference { campaign_id, window: None, cause: cause.as_str(), stream_clicks, batch_clicks, clicks }
        }));
    }
    Ok(differences)
}

/// A cause that this build does not know explains nothing.
fn cause_named(name: &str) -> Cause {
    Cause::ALL.into_iter().find(|cause| cause.as_str() == name).unwrap_or(Cause::Unexplained)
}
