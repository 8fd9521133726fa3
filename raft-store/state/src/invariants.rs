//! What holds in every state that apply can reach, whatever the commands were.
//!
//! [`GroupState::check`] compares a whole state with these rules. Tests and the simulation call it after every apply.
//! So a mistake in apply is found at the entry that made it, not when its effect is seen. It takes as long as there are
//! windows, runs and blocks of seen ids; no production path calls it yet.

use std::collections::BTreeSet;

use clicktally_proto::identity::ids::WORKERS_MAX;
use clicktally_proto::identity::shard_key::ShardId;
use thiserror::Error;

use crate::group_state::GroupState;
use crate::limits::{CAMPAIGNS_MAX, NODES_MAX};

/// A state that apply must never reach.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{rule}: {detail}")]
pub struct BrokenInvariant {
    /// The rule, as a claim.
    pub rule: &'static str,
    pub detail: String,
}

fn require(holds: bool, rule: &'static str, detail: impl FnOnce() -> String) -> Result<(), BrokenInvariant> {
    if holds { Ok(()) } else { Err(BrokenInvariant { rule, detail: detail() }) }
}

impl GroupState {
    /// # Errors
    /// The first rule that the state breaks.
    pub fn check(&self) -> Result<(), BrokenInvariant> {
        self.check_roster()?;
        self.check_shards()?;
        self.check_windows()?;
        self.check_seen_ids()?;
        self.check_catalogue()?;
        let (held, recounted) = (self.held(), self.recounted());
        require(held == recounted, "the counted memory is that of a recount", || format!("{held:?}, {recounted:?}"))
    }

    fn check_roster(&self) -> Result<(), BrokenInvariant> {
        let nodes = self.nodes.len();
        require(nodes <= NODES_MAX, "a group has at most NODES_MAX nodes", || format!("{nodes} nodes"))?;
        let strays: Vec<_> =
            self.draining.iter().chain(self.levels.keys()).filter(|node| !self.nodes.contains_key(node)).collect();
        require(strays.is_empty(), "only registered nodes drain or have a level", || format!("nodes {strays:?}"))?;
        let holders: BTreeSet<_> = self.workers.held.values().map(|(node, _)| node).collect();
        let held = &self.workers.held;
        require(holders.len() == held.len(), "a node holds one worker id at most", || format!("{held:?}"))?;
        let is_in_range = held.keys().all(|worker| *worker < WORKERS_MAX);
        require(is_in_range, "a worker id fits its bits of a click id", || format!("{held:?}"))
    }

    fn check_shards(&self) -> Result<(), BrokenInvariant> {
        let own: BTreeSet<ShardId> = ShardId::of_group(self.group).collect();
        let found: BTreeSet<ShardId> = self.shards.keys().copied().collect();
        require(own == found, "a group has all its own shards and no others", || format!("{found:?}"))?;
        for (shard, entry) in &self.shards {
            let told = || format!("shard {}: {entry:?}", shard.0);
            let is_known = |node: &u64| self.nodes.contains_key(node);
            require(entry.owner.iter().all(is_known), "the owner of a shard is registered", told)?;
            require(entry.heir.iter().all(is_known), "the heir of a shard is registered", told)?;
            let is_planned_from_another = entry.heir.is_none() || entry.owner.is_some() && entry.heir != entry.owner;
            require(is_planned_from_another, "a shard with an heir has another node as its owner", told)?;
            let is_at_its_end = entry.last_range.is_none_or(|(from, to)| from < to && to == entry.committed_offset);
            require(is_at_its_end, "the last range ends at the committed offset", told)?;
            require(entry.outcomes.is_conserved(), "every click read has exactly one outcome", told)?;
        }
        let lowest = self.shards.values().map(|entry| entry.watermark_ms).min().unwrap_or(0);
        require(self.watermark_ms >= lowest, "the group's watermark is not below that of every shard", || {
            format!("{} below {lowest}", self.watermark_ms)
        })
    }

    fn check_windows(&self) -> Result<(), BrokenInvariant> {
        let (newest, published) = (self.newest_revision, self.published_revision);
        let told = || format!("{published} above {newest}");
        require(published <= newest, "nothing is published that does not exist", told)?;
        let rules = self.event_time();
        for (minute, window) in &self.windows {
            let told = || {
                let (fired_at, final_at, changed_at) = (window.fired_at, window.final_at, window.changed_at);
                format!("minute {}: fired {fired_at:?}, final {final_at:?}, changed {changed_at}", minute.0)
            };
            let is_ordered = window.final_at.is_none_or(|last| window.fired_at.is_some_and(|fired| fired <= last));
            require(is_ordered, "a window fires before it is final", told)?;
            let is_due = window.fired_at.is_none() || rules.has_fired(*minute, self.watermark_ms);
            require(is_due, "a window fires only once the watermark has passed its end", told)?;
            let is_counted = window.newest_revision().is_none_or(|revision| revision <= newest);
            require(is_counted, "no window is newer than the newest revision", told)?;
        }
        Ok(())
    }

    fn check_seen_ids(&self) -> Result<(), BrokenInvariant> {
        for (shard, minutes) in &self.seen {
            let is_own = self.shards.contains_key(shard);
            require(is_own, "seen ids are of the group's own shards", || format!("shard {}", shard.0))?;
            let is_in_place = minutes.iter().all(|(minute, blocks)| blocks.iter().all(|block| block.minute == *minute));
            require(is_in_place, "a block of seen ids is under its own minute", || format!("shard {}", shard.0))?;
        }
        Ok(())
    }

    fn check_catalogue(&self) -> Result<(), BrokenInvariant> {
        let campaigns = self.campaigns.len();
        require(campaigns <= CAMPAIGNS_MAX, "a group has at most CAMPAIGNS_MAX campaigns", || format!("{campaigns}"))?;
        for (id, campaign) in &self.campaigns {
            let told = || format!("campaign {id}: {campaign:?}");
            require(campaign.terms.campaign_id == *id, "terms are under their own campaign", told)?;
            require(campaign.spend_micros >= 0, "spend is never negative", told)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clicktally_proto::checkpoint::Epoch;
    use clicktally_proto::codec;
    use clicktally_proto::command::{AssignShard, COMMAND_LEVEL, Command, NodeRecord, Outcome};
    use clicktally_proto::event_time::Minute;
    use clicktally_proto::identity::shard_key::GroupId;

    use super::*;
    use crate::windows::window::Window;

    const SHARD: ShardId = ShardId(3);

    fn state() -> GroupState {
        let mut state = GroupState::new(GroupId(0));
        let record =
            NodeRecord { node: 1, http_address: "a:1".into(), peer_address: "a:2".into(), can_aggregate: true };
        let assignment = AssignShard { shard: SHARD, owner: Some(1), expected_epoch: Epoch(0) };
        for (index, command) in (1..).zip([Command::RegisterNode(record), Command::AssignShard(assignment)]) {
            let outcome = state.apply(index, &codec::encode(&command).unwrap(), COMMAND_LEVEL).unwrap();
            assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
        }
        state.check().unwrap();
        state
    }

    fn assert_broken(rule: &str, break_it: impl FnOnce(&mut GroupState)) {
        let mut state = state();
        break_it(&mut state);
        let broken = state.check().unwrap_err();
        assert_eq!(broken.rule, rule, "{broken}");
    }

    #[test]
    fn every_rule_is_seen_broken_once() {
        assert_broken("only registered nodes drain or have a level", |state| {
            state.draining.insert(9);
        });
        assert_broken("a node holds one worker id at most", |state| {
            state.workers.held.extend([(1, (1, 7)), (2, (1, 8))]);
        });
        assert_broken("a worker id fits its bits of a click id", |state| {
            state.workers.held.insert(WORKERS_MAX, (1, 7));
        });
        assert_broken("a group has all its own shards and no others", |state| {
            state.shards.remove(&SHARD);
        });
        assert_broken("the owner of a shard is registered", |state| {
            state.nodes.clear();
        });
        let entry = |state: &mut GroupState, change: fn(&mut crate::shards::ShardEntry)| {
            change(state.shards.get_mut(&SHARD).unwrap());
        };
        assert_broken("the heir of a shard is registered", |state| entry(state, |shard| shard.heir = Some(9)));
        assert_broken("a shard with an heir has another node as its owner", |state| {
            entry(state, |shard| shard.heir = shard.owner);
        });
        assert_broken("the last range ends at the committed offset", |state| {
            entry(state, |shard| shard.last_range = Some((2, 5)));
        });
        assert_broken("every click read has exactly one outcome", |state| {
            entry(state, |shard| shard.outcomes.read = 1);
        });
        assert_broken("the group's watermark is not below that of every shard", |state| {
            state.shards.values_mut().for_each(|shard| shard.watermark_ms = 1);
        });
        assert_broken("nothing is published that does not exist", |state| state.published_revision = 1);
        let window = |fired_at, final_at| Arc::new(Window { fired_at, final_at, ..Window::default() });
        assert_broken("a window fires before it is final", |state| {
            state.windows.insert(Minute(5), window(None, Some(1)));
        });
        assert_broken("a window fires only once the watermark has passed its end", |state| {
            state.windows.insert(Minute(5), window(Some(1), None));
        });
        assert_broken("no window is newer than the newest revision", |state| {
            state.watermark_ms = Minute(6).start_ms();
            state.windows.insert(Minute(5), window(Some(1), None));
        });
        assert_broken("the counted memory is that of a recount", |state| state.held.cells = 1);
    }
}
