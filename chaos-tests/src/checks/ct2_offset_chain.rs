//! CT-2: offsets and epochs of a shard only move forward, an epoch has at most one owner, and a quiet shard has read
//! its whole partition.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::cluster_client::{ClusterView, ShardView};

/// Watches successive views of a cluster. They may come from different nodes, so an older view may follow a newer one.
/// Only a view that the replicated state can never have had is a violation.
#[derive(Debug, Default)]
pub struct OffsetChain {
    owners: BTreeMap<(u16, u64), u64>,
    offsets: BTreeMap<(u16, u64), (u64, u64)>,
    violations: Vec<Violation>,
}

impl OffsetChain {
    pub fn observe(&mut self, view: &ClusterView) {
        for (shard, seen) in view.shards() {
            self.observe_shard(shard, &seen);
        }
    }

    pub fn observe_shard(&mut self, shard: u16, seen: &ShardView) {
        let Some(owner) = seen.owner else { return };
        let first = *self.owners.entry((shard, seen.epoch)).or_insert(owner);
        if first != owner {
            self.violate(format!("shard {shard}, epoch {}: owned by node {first} and by node {owner}", seen.epoch));
        }
        let offset = seen.committed_offset;
        let range = self.offsets.entry((shard, seen.epoch)).or_insert((offset, offset));
        *range = (range.0.min(offset), range.1.max(offset));
    }

    fn violate(&mut self, detail: String) {
        self.violations.push(Violation { invariant: Invariant::OffsetChain, detail });
    }

    /// A later epoch never shows an offset below what an earlier one had committed.
    pub fn finish(mut self) -> Vec<Violation> {
        let mut reached: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
        let mut found = Vec::new();
        for (&(shard, epoch), &(low, high)) in &self.offsets {
            if let Some(&(before, highest)) = reached.get(&shard)
                && low < highest
            {
                found.push(format!(
                    "shard {shard}: epoch {before} committed up to {highest}, epoch {epoch} was at {low}"
                ));
            }
            reached.insert(shard, (epoch, high));
        }
        found.into_iter().for_each(|detail| self.violate(detail));
        self.violations
    }
}

/// Watches checkpoints in the order of their application: none may skip or repeat offsets, and none of a former owner
/// may be accepted.
#[derive(Debug, Default)]
pub struct AppliedChain {
    shards: BTreeMap<u16, (u64, u64)>,
}

impl AppliedChain {
    /// An accepted checkpoint: `[from, to)` under `epoch`, while the shard's epoch was `assigned_epoch`.
    pub fn observe(&mut self, shard: u16, epoch: u64, assigned_epoch: u64, from: u64, to: u64) -> Option<Violation> {
        let (epoch_before, to_before) = self.shards.insert(shard, (epoch, to)).unwrap_or((0, 0));
        let is_continued = from == to_before && to >= from && epoch >= epoch_before && epoch == assigned_epoch;
        let detail = format!(
            "shard {shard}: [{from}, {to}) of epoch {epoch} was taken under epoch {assigned_epoch}, after {to_before} of epoch {epoch_before}"
        );
        (!is_continued).then_some(Violation { invariant: Invariant::OffsetChain, detail })
    }
}

/// Every shard has counted to the end of its partition.
pub fn check_read_to_end(view: &ClusterView, end_offsets: &[u64]) -> Vec<Violation> {
    let shards = view.shards();
    (0_u16..)
        .zip(end_offsets)
        .filter_map(|(shard, &end)| {
            let committed = shards.get(&shard).map_or(0, |shard| shard.committed_offset);
            let detail = format!("shard {shard}: committed {committed}, the log ends at {end}");
            (committed != end).then_some(Violation { invariant: Invariant::OffsetChain, detail })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_client::OutcomesView;

    fn view(owner: u64, epoch: u64, committed_offset: u64) -> ShardView {
        ShardView {
            shard: 3,
            owner: Some(owner),
            heir: None,
            epoch,
            committed_offset,
            lag_records: None,
            outcomes: OutcomesView::default(),
        }
    }

    #[test]
    fn a_gap_an_overlap_and_a_fenced_owner_are_seen_as_they_are_applied() {
        let chain = |steps: &[(u64, u64, u64, u64)]| {
            let mut chain = AppliedChain::default();
            steps.iter().filter_map(|&(epoch, assigned, from, to)| chain.observe(3, epoch, assigned, from, to)).count()
        };
        assert_eq!(chain(&[(1, 1, 0, 5), (1, 1, 5, 5), (2, 2, 5, 9)]), 0);
        for broken in [[(1, 1, 0, 5), (1, 1, 6, 9)], [(1, 1, 0, 5), (1, 1, 4, 9)], [(2, 2, 0, 5), (2, 3, 5, 9)]] {
            assert_eq!(chain(&broken), 1, "{broken:?}");
        }
    }

    #[test]
    fn two_owners_of_one_epoch_and_offsets_that_fall_back_are_seen() {
        let mut chain = OffsetChain::default();
        chain.observe_shard(3, &view(1, 1, 100));
        chain.observe_shard(3, &view(2, 2, 100));
        chain.observe_shard(3, &view(1, 1, 50));
        assert!(chain.finish().is_empty(), "an older view after a newer one is no violation");

        let mut chain = OffsetChain::default();
        chain.observe_shard(3, &view(1, 1, 100));
        chain.observe_shard(3, &view(2, 1, 100));
        chain.observe_shard(3, &view(2, 2, 99));
        assert_eq!(chain.finish().len(), 2);
    }
}
