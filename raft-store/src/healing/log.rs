//! Repairs a replica whose log lost entries that it had acknowledged. The replica rejoins as a member and keeps its
//! promises.
//!
//! Such a replica must not take part before the repair. It could vote for a candidate that lacks an entry which was
//! committed only because this replica had acknowledged it. The group would then lose that entry. So before openraft
//! sees the log, the node fetches a snapshot from a peer that covers every acknowledged entry, and continues after
//! it:
//!
//! 1. The vote is intact, because [`crate::group_log::promises`] keeps a second copy. So the replica votes at most
//!    once in any term.
//! 2. A snapshot holds only committed entries. Suppose its last entry is not below the last acknowledged one. Then it
//!    covers every acknowledged entry, or the entry with which a later leader replaced it. An undamaged replica could
//!    have the same log after it.
//! 3. Until the repair is done, the node answers no requests. If that leaves no majority, the group waits: it is
//!    unavailable, but loses no data.
//!
//! The node refuses to start if it also lost the record of its promises, because it cannot know then which entries it
//! must keep.

use crate::group_log::GroupLog;
use crate::group_log::promises::{LogDamage, falls_short};
use crate::healing::snapshot::fetch_snapshot;
use crate::open_error::OpenError;
use crate::peers::transport::{PeerTarget, PeerTransport};
use crate::snapshots::group_snapshots::{GroupSnapshots, ReceivedSnapshot};
use clicktally_state::snapshot::SnapshotError;

/// Repairs the log of a group with a snapshot from the first of `peers` that has a sufficient one. `acknowledged` is
/// the highest index that a leader remembers of this node; it may exceed the node's own record.
pub(crate) async fn heal_log(
    group: u16,
    log: &mut GroupLog,
    damage: LogDamage,
    acknowledged: Option<u64>,
    snapshots: &GroupSnapshots,
    peers: &[PeerTarget],
    transport: &dyn PeerTransport,
) -> Result<(), OpenError> {
    // After a power cut the record may end before the log did. So every entry in the log, readable or not, counts as
    // acknowledged.
    let at_least = acknowledged.unwrap_or(0).max(damage.acknowledged.index).max(log.physical_last().unwrap_or(0));
    tracing::error!(
        group,
        what = damage.what,
        acknowledged = at_least,
        "the Raft log of this group is damaged: this replica applies no entry of it and does not vote until it is repaired from a \
         peer. Check the disk (dmesg, SMART)"
    );
    let holds_all = |received: &ReceivedSnapshot| !falls_short(received.meta.last_log_id, Some(damage.acknowledged));
    let received = fetch_snapshot(peers, transport, snapshots, at_least).await.filter(holds_all);
    let Some((received, last)) = received.and_then(|received| received.meta.last_log_id.map(|last| (received, last)))
    else {
        return Err(OpenError::LogDamaged { group, acknowledged: at_least, what: damage.what });
    };
    // The snapshot must be durable before the log restarts after it. Otherwise a crash could leave a log whose first
    // entries exist nowhere.
    snapshots.adopt(received).map_err(|source: SnapshotError| OpenError::Snapshot { group, source })?;
    log.restart_behind(last).await?;
    tracing::warn!(group, last = last.index, "the damaged log is repaired; it continues after a peer's snapshot");
    Ok(())
}
