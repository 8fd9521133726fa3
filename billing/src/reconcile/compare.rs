//! The day's differences by cause: first window by window, then for whole campaigns against what is billed.

use std::collections::{BTreeMap, HashMap};

use clicktally_database::billing::{NewDifference, Reconciliation};
use clicktally_proto::event_time::Minute;

use super::explain::{Cause, ComparedWindow, explain};
use crate::error::BillingError;

/// (Campaign, ad, minute).
pub(super) type WindowKey = (i64, i64, Minute);

/// `late`: the valid clicks that the batch counts from the very records the stream declared late.
pub(super) async fn compare_windows(
    reconciliation: &mut Reconciliation<'_>,
    late: &HashMap<WindowKey, i64>,
) -> Result<Vec<NewDifference>, BillingError> {
    let mut differences = Vec::new();
    for window in reconciliation.differing_windows().await? {
        let compared = ComparedWindow {
            batch_clicks: window.batch_clicks,
            batch_invalid: window.batch_invalid,
            stream_clicks: window.stream_clicks,
            stream_invalid: window.stream_invalid,
            late: late.get(&(window.campaign_id, window.ad_id, window.minute)).copied().unwrap_or(0),
            strayed_copies: window.strayed_copies,
            is_final: window.is_final,
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
    Ok(differences)
}

/// Sums the windows' causes by campaign, and adds what was counted but not billed.
pub(super) async fn compare_campaigns(
    reconciliation: &mut Reconciliation<'_>,
    windows: &[NewDifference],
) -> Result<Vec<NewDifference>, BillingError> {
    assert!(windows.iter().all(|d| d.window.is_some()), "campaigns are summed from windows alone");
    let mut causes: BTreeMap<i64, BTreeMap<Cause, i64>> = BTreeMap::new();
    for window in windows {
        let sum = causes.entry(window.campaign_id).or_default().entry(cause_named(window.cause)).or_insert(0);
        *sum = sum.checked_add(window.clicks).ok_or(BillingError::Overflow("a campaign's difference"))?;
    }
    for (campaign_id, cause, clicks) in reconciliation.unbilled_clicks().await? {
        let sum = causes.entry(campaign_id).or_default().entry(cause_named(&cause)).or_insert(0);
        *sum = sum.checked_sub(clicks).ok_or(BillingError::Overflow("a campaign's difference"))?;
    }
    let campaigns: Vec<i64> = causes.keys().copied().collect();
    let totals = reconciliation.campaign_totals(&campaigns).await?;
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
