//! Which one move evens out the load most, if any is worth its pause.
//!
//! A move pauses its shard and has its seen ids unpacked anew, so it has to gain something, and loads as measured
//! waver. Hence two thresholds: nodes that differ by less than an eighth of the mean are left alone, and a move has
//! to take at least half of what it moves off the heavier of its two nodes, so that it never turns a difference round
//! into one as large. Every move strictly lowers the heavier of its two nodes, so that a steady load comes to rest. A
//! shard that is hot by itself is not passed around: wherever it goes, that node becomes the heavier one.

use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::ShardId;

use super::node_loads::NodeLoads;

/// The heaviest and the lightest node may differ by this part of the mean load.
const GAP_TOLERATED_DIVISOR: u64 = 8;
/// A move must gain at least this part of the load that it moves.
const GAIN_MIN_DIVISOR: u64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BalanceMove {
    pub(super) shard: ShardId,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) weight: u64,
}

/// `movable`: shards of this group with their owner and weight. The heaviest node whose shards allow an improvement
/// gives one to the lightest; with `whatever_it_gains` the thresholds are zero.
pub(super) fn best_move(
    loads: &NodeLoads,
    movable: &[(ShardId, NodeId, u64)],
    whatever_it_gains: bool,
) -> Option<BalanceMove> {
    let nodes = loads.heaviest_first();
    let &(to, lightest) = nodes.last()?;
    let gap_tolerated = if whatever_it_gains { 0 } else { loads.mean() / GAP_TOLERATED_DIVISOR };
    for (from, load) in nodes {
        if load.saturating_sub(lightest) <= gap_tolerated {
            return None;
        }
        let own = movable.iter().filter(|(_, owner, _)| *owner == from);
        let gains = own.filter_map(|&(shard, _, weight)| {
            let (left, taken) = loads.after_move(from, to, weight)?;
            let gain = load.saturating_sub(left.max(taken));
            let gain_min = if whatever_it_gains { 1 } else { ((load - left) / GAIN_MIN_DIVISOR).max(1) };
            (gain >= gain_min).then_some((gain, shard, weight))
        });
        let best = gains.max_by_key(|&(gain, shard, _)| (gain, std::cmp::Reverse(shard)));
        if let Some((_, shard, weight)) = best {
            return Some(BalanceMove { shard, from, to, weight });
        }
    }
    None
}
