//! The batch waits until PostgreSQL holds every price that was in force.

use std::time::Duration;

use clicktally_database::Database;
use clicktally_database::catalog::{TermsExport, exports};
use clicktally_database::notifications::Channel;
use clicktally_proto::event_time::{EventTimeRules, UnixMillis};
use clicktally_proto::fault::{Mutant, is_broken};

use crate::error::BillingError;

/// How long to wait for an announcement before the next look. An announcement may be lost.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What the cluster has reported about the terms that the batch bills by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportedTerms {
    /// All changes of terms before this time are in PostgreSQL.
    pub complete_to_ms: UnixMillis,
    /// The bound that the stream counted by; every group has the same.
    pub max_ahead_ms: u64,
}

impl ExportedTerms {
    /// `None` until each of `groups` groups has reported.
    ///
    /// # Errors
    /// `OtherGroups`; `RulesDiffer`.
    pub fn of(groups: u16, exports: &[TermsExport]) -> Result<Option<ExportedTerms>, BillingError> {
        if exports.len() > usize::from(groups) {
            return Err(BillingError::OtherGroups { configured: groups, found: exports.len() });
        }
        let complete_to_ms = exports.iter().map(|export| export.complete_to_ms).min();
        let bounds: Vec<u64> = exports.iter().map(|export| export.max_ahead_ms).collect();
        let Some((&max_ahead_ms, others)) = bounds.split_first() else { return Ok(None) };
        if others.iter().any(|other| *other != max_ahead_ms) {
            return Err(BillingError::RulesDiffer(bounds));
        }
        let is_whole = exports.len() == usize::from(groups);
        let max_ahead_ms =
            if is_broken(Mutant::AheadBoundOfBatch) { EventTimeRules::default().max_ahead_ms } else { max_ahead_ms };
        Ok(complete_to_ms.filter(|_| is_whole).map(|complete_to_ms| ExportedTerms { complete_to_ms, max_ahead_ms }))
    }

    /// PostgreSQL has every price that was in force before `until_ms`.
    pub fn cover(&self, until_ms: UnixMillis) -> bool {
        self.complete_to_ms >= until_ms || is_broken(Mutant::TermsNotAwaited)
    }
}

/// What the groups have reported so far; `None` until each has.
///
/// # Errors
/// `OtherGroups` and `RulesDiffer` as [`wait_until_terms_exported`].
pub async fn exported_terms(database: &Database, groups: u16) -> Result<Option<ExportedTerms>, BillingError> {
    ExportedTerms::of(groups, &exports(database).await?)
}

/// Waits until the terms of all groups are complete up to `until_ms`. That is the time at which a run was asked for,
/// whatever its day: terms that are accepted after the end of a day also price its clicks, if they are the first of a
/// campaign.
///
/// # Errors
/// `TermsBehind` when that takes longer than `deadline`; `OtherGroups` and `RulesDiffer` if the reports are not those
/// of one cluster with so many groups.
pub async fn wait_until_terms_exported(
    database: &Database,
    groups: u16,
    until_ms: UnixMillis,
    deadline: Duration,
) -> Result<ExportedTerms, BillingError> {
    // Listen before the first look, so that no announcement falls in between.
    let mut announcements = database.listen(Channel::TermsExported).await?;
    let mut found = None;
    let waiting = async {
        loop {
            found = exported_terms(database, groups).await?;
            if let Some(terms) = found.filter(|terms| terms.cover(until_ms)) {
                return Ok(terms);
            }
            if let Ok(announced) = tokio::time::timeout(LOOK_AGAIN_AFTER, announcements.next()).await {
                announced?;
            }
        }
    };
    match tokio::time::timeout(deadline, waiting).await {
        Ok(outcome) => outcome,
        Err(_) => Err(BillingError::TermsBehind {
            waited_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            behind_ms: found.map(|terms| until_ms.saturating_sub(terms.complete_to_ms)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::identity::shard_key::GroupId;

    use super::*;

    fn export(group: u16, complete_to_ms: u64, max_ahead_ms: u64) -> TermsExport {
        TermsExport { group: GroupId(group), complete_to_ms, max_ahead_ms }
    }

    #[test]
    fn the_slowest_group_decides_and_a_silent_one_leaves_everything_open() {
        let of = |groups, exports: &[TermsExport]| ExportedTerms::of(groups, exports).unwrap();
        assert_eq!(of(2, &[]), None);
        assert_eq!(of(2, &[export(0, 50, 9)]), None);
        let both = [export(0, 50, 9), export(1, 40, 9)];
        assert_eq!(of(2, &both), Some(ExportedTerms { complete_to_ms: 40, max_ahead_ms: 9 }));
    }

    #[test]
    fn reports_of_another_cluster_are_refused() {
        let more = ExportedTerms::of(1, &[export(0, 50, 9), export(1, 40, 9)]);
        assert!(matches!(more, Err(BillingError::OtherGroups { configured: 1, found: 2 })));
        let other = ExportedTerms::of(2, &[export(0, 50, 9), export(1, 40, 8)]);
        assert!(matches!(other, Err(BillingError::RulesDiffer(_))));
    }
}
