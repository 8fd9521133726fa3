//! Inspects every replica after every step: traces what changed, and checks what must hold at any time.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::{GroupId, ShardId};
use clicktally_raft_store::group::Group;

use super::world::{World, millis};
use crate::checks::ct3_replicas_equal::{self, ReplicaDigest};
use crate::checks::ct16_one_life_a_reign::Reigns;
use crate::checks::ct21_state_is_sound;
use crate::checks::{Invariant, Violation};
use crate::simulation::click_oracle::{ClickOracle, CommittedWatermark};
use crate::simulation::random::{FNV_OFFSET, fnv1a};

/// How often the replicas' whole states are compared. Each comparison costs as much as a snapshot.
const COMPARE_EVERY_MS: u64 = 500;
/// States kept for replicas that reach their index later.
const DIGESTS_MAX: usize = 4_096;

/// A replica at the previous inspection.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Look {
    applied: u64,
    leader: Option<NodeId>,
    term: u64,
}

/// A shard in replicated state, as of the newest log index seen.
#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    index: u64,
    epoch: u64,
    offset: u64,
    watermark_ms: u64,
    owner: Option<NodeId>,
}

#[derive(Default)]
pub(super) struct Watch {
    looks: BTreeMap<(NodeId, GroupId), Look>,
    reigns: BTreeMap<GroupId, Reigns>,
    /// By log index: the first replica seen there.
    digests: BTreeMap<GroupId, BTreeMap<u64, ReplicaDigest>>,
    compared_ms: u64,
    shards: BTreeMap<ShardId, Progress>,
}

impl Watch {
    /// Returns the first violation, if there is one.
    pub(super) fn look(&mut self, world: &World, oracle: &mut ClickOracle) -> Result<(), Violation> {
        for &node in &world.nodes {
            world.disk(node).violation().map_or(Ok(()), Err)?;
            let Some(groups) = world.groups(node) else {
                self.looks.retain(|(of, _), _| *of != node);
                continue;
            };
            for group in groups.iter() {
                self.look_at(world, node, group, oracle)?;
            }
        }
        let now_ms = millis(world.elapsed());
        if now_ms >= self.compared_ms + COMPARE_EVERY_MS {
            self.compared_ms = now_ms;
            self.compare(world)?;
        }
        Ok(())
    }

    fn look_at(
        &mut self,
        world: &World,
        node: NodeId,
        group: &Group,
        oracle: &mut ClickOracle,
    ) -> Result<(), Violation> {
        let (leader, term) = group.leader_and_term();
        let look = Look { applied: *group.applied().borrow(), leader, term };
        let id = group.id();
        let before = self.looks.insert((node, id), look.clone()).unwrap_or_default();
        if before == look {
            return Ok(());
        }
        let Look { applied, .. } = look;
        world.note_committed(id, applied);
        world.line(format_args!("node {node}, group {}: applied {applied}, term {term}, leader {leader:?}", id.0));
        if leader == Some(node) && group.is_leader() {
            let reigns = self.reigns.entry(id).or_default();
            reigns.observe(term, node, world.host(node, |host| host.lives)).map_or(Ok(()), Err)?;
        }
        if before.applied == applied {
            return Ok(());
        }
        let progress = group.read(|state| {
            let progress = |(&shard, entry): (&ShardId, &clicktally_state::shards::ShardEntry)| {
                let (epoch, offset, watermark_ms) = (entry.epoch.0, entry.committed_offset, entry.watermark_ms);
                (shard, Progress { index: applied, epoch, offset, watermark_ms, owner: entry.owner })
            };
            state.shards().iter().map(progress).collect::<Vec<_>>()
        });
        progress.into_iter().try_for_each(|(shard, now)| self.note(world, shard, now, oracle))
    }

    fn note(
        &mut self,
        world: &World,
        shard: ShardId,
        now: Progress,
        oracle: &mut ClickOracle,
    ) -> Result<(), Violation> {
        let before = self.shards.entry(shard).or_default();
        let (old, new) = if now.index >= before.index { (*before, now) } else { (now, *before) };
        let place = |at: &Progress| (at.epoch, at.offset, at.watermark_ms);
        let goes_back = new.epoch < old.epoch || new.offset < old.offset || new.watermark_ms < old.watermark_ms;
        let two_owners = new.epoch == old.epoch && new.owner != old.owner && old.index > 0;
        if goes_back || two_owners {
            let detail = format!("shard {}: from {old:?} to {new:?}", shard.0);
            return Err(breach(Invariant::OffsetChain, detail));
        }
        if now.index >= before.index && place(&now) != place(before) {
            if (now.offset, now.watermark_ms) != (before.offset, before.watermark_ms) {
                let committed = CommittedWatermark { to: now.offset, watermark_ms: now.watermark_ms };
                oracle.note_committed(shard, committed);
            }
            world.line(format_args!(
                "shard {}: epoch {} of node {:?}, offset {}, watermark {}",
                shard.0, now.epoch, now.owner, now.offset, now.watermark_ms
            ));
        }
        if now.index >= before.index {
            *before = now;
        }
        Ok(())
    }

    /// CT-3: replicas that have applied the same entries are equal, byte for byte. CT-21: their states are sound.
    pub(super) fn compare(&mut self, world: &World) -> Result<(), Violation> {
        for &node in &world.nodes {
            let Some(groups) = world.groups(node) else { continue };
            for group in groups.iter() {
                let index = *group.applied().borrow();
                group.read(|state| ct21_state_is_sound::check(index, state))?;
                let digest = digest(group);
                let now = ReplicaDigest { node, index, digest };
                let digests = self.digests.entry(group.id()).or_default();
                let first = *digests.entry(index).or_insert(now);
                ct3_replicas_equal::check(&[first, now]).into_iter().next().map_or(Ok(()), Err)?;
                while digests.len() > DIGESTS_MAX {
                    digests.pop_first();
                }
                let (id, syncs) = (group.id().0, world.disk(node).syncs());
                world.line(format_args!("node {node}, group {id}: state {digest:016x} at {index}, {syncs} fsyncs"));
            }
        }
        Ok(())
    }
}

pub(super) fn breach(invariant: Invariant, detail: String) -> Violation {
    Violation { invariant, detail }
}

/// A digest of the state as a snapshot would contain it.
pub(super) fn digest(group: &Group) -> u64 {
    struct Hash(u64);
    impl Write for Hash {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = fnv1a(self.0, bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hash = Hash(FNV_OFFSET);
    match group.read(|state| state.freeze()).write_to(&mut hash) {
        Ok(_) => hash.0,
        Err(_) => 0,
    }
}
