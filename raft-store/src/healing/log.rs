//! A replica whose log lost entries that it had acknowledged comes back as a member, with its promises kept.
//!
//! Such a node must not take part as it is. It would give its vote to a candidate without an entry that was committed because it had
//! acknowledged it, and the entry would be lost. So before openraft sees the log, the node fetches a snapshot from a peer that holds all
//! it ever acknowledged, and goes on behind it:
//!
//! 1. Its vote is whole ([`crate::group_log::promises`] has a second copy), so it votes at most once in any term.
//! 2. A snapshot holds committed entries only. One whose last entry is not below the last one acknowledged holds every acknowledged
//!    entry, or what a later leader put in its place: the log behind it is one an undamaged replica could have.
//! 3. Until then it answers nobody. If that leaves no majority, the group waits: an outage, and no loss.
//!
//! A node that lost the record of its promises as well is refused: nothing says then what it must not forget.

use crate::group_log::GroupLog;
use crate::group_log::promises::{LogDamage, falls_short};
use crate::healing::snapshot::fetch_snapshot;
use crate::open_error::OpenError;
use crate::peers::transport::{PeerTarget, PeerTransport};
use crate::snapshots::group_snapshots::{GroupSnapshots, ReceivedSnapshot};
use clicktally_state::snapshot::SnapshotError;

/// Makes the log of a group whole, from the first of `peers` that can. `acknowledged`: what a leader remembers of this node, should
/// that be more than the node itself does.
pub(crate) async fn heal_log(
    group: u16,
    log: &mut GroupLog,
    damage: LogDamage,
    acknowledged: Option<u64>,
    snapshots: &GroupSnapshots,
    peers: &[PeerTarget],
    transport: &dyn PeerTransport,
) -> Result<(), OpenError> {
    // After a power cut the record may say less than the log held: what lies there, readable or not, was acknowledged as well.
    let at_least = acknowledged.unwrap_or(0).max(damage.acknowledged.index).max(log.physical_last().unwrap_or(0));
    tracing::error!(
        group,
        what = damage.what,
        acknowledged = at_least,
        "the Raft log of this group is damaged: nothing of it is applied, and this replica votes for nobody until a peer has made it \
         whole. Check the disk (dmesg, SMART)"
    );
    let holds_all = |received: &ReceivedSnapshot| !falls_short(received.meta.last_log_id, Some(damage.acknowledged));
    let received = fetch_snapshot(peers, transport, snapshots, at_least).await.filter(holds_all);
    let Some((received, last)) = received.and_then(|received| received.meta.last_log_id.map(|last| (received, last)))
    else {
        return Err(OpenError::LogDamaged { group, acknowledged: at_least, what: damage.what });
    };
    // The snapshot first: a log that begins behind one that is not there would be a log without a beginning.
    snapshots.adopt(received).map_err(|source: SnapshotError| OpenError::Snapshot { group, source })?;
    log.restart_behind(last).await?;
    tracing::warn!(group, last = last.index, "the damaged log goes on behind a peer's snapshot");
    Ok(())
}
