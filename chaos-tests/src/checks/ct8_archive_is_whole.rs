//! CT-8: everything in the raw log is in the archive, exactly once by manifest.

use std::collections::BTreeMap;

use super::{Invariant, Violation};

/// The facts of the manifest, and those of the log.
#[derive(Debug, Clone)]
pub struct ArchiveFacts {
    pub archived_to: BTreeMap<u16, u64>,
    /// Files that do not continue their predecessor.
    pub breaks: u64,
    pub archived_clicks: u64,
    pub archived_malformed: u64,
    pub end_offsets: Vec<u64>,
    pub log_clicks: u64,
    pub log_malformed: u64,
}

pub fn check(facts: &ArchiveFacts) -> Vec<Violation> {
    let mut details = Vec::new();
    for (shard, &end) in (0_u16..).zip(&facts.end_offsets) {
        let to = facts.archived_to.get(&shard).copied().unwrap_or(0);
        if to != end {
            details.push(format!("shard {shard} is archived up to {to}, the log ends at {end}"));
        }
    }
    if facts.breaks > 0 {
        details.push(format!("{} files do not continue the one before", facts.breaks));
    }
    if facts.archived_clicks != facts.log_clicks {
        details.push(format!("{} clicks archived, {} in the log", facts.archived_clicks, facts.log_clicks));
    }
    if facts.archived_malformed != facts.log_malformed {
        details.push(format!(
            "{} malformed records archived, {} in the log",
            facts.archived_malformed, facts.log_malformed
        ));
    }
    details.into_iter().map(|detail| Violation { invariant: Invariant::ArchiveWhole, detail }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_shard_a_break_and_a_lost_click_are_seen() {
        let whole = ArchiveFacts {
            archived_to: BTreeMap::from([(0, 7), (1, 9)]),
            breaks: 0,
            archived_clicks: 16,
            archived_malformed: 0,
            end_offsets: vec![7, 9],
            log_clicks: 16,
            log_malformed: 0,
        };
        assert!(check(&whole).is_empty());
        let broken = ArchiveFacts { end_offsets: vec![7, 10], breaks: 1, log_clicks: 17, ..whole };
        assert_eq!(check(&broken).len(), 3);
    }
}
