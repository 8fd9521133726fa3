//! Repairs a replica whose snapshots are all damaged, or end before the entries to which its log was purged. The
//! replica gets a snapshot from a peer before it starts.
//!
//! This is safe because the replica lost nothing that Raft relies on: the log still holds the vote and every unpurged
//! acknowledged entry. Only the result of the purged entries is missing, and any member's snapshot holds it. A node
//! that lost its vote or acknowledged entries is a different case, because it would vote as if it had not lost them
//! ([`crate::healing::log`]).

use std::io::Write;
use std::time::Duration;

use clicktally_proto::codec::CodecError;
use tokio::time::{sleep, timeout};

use crate::peers::messages::{FetchReply, FetchSnapshot};
use crate::peers::network::ask;
use crate::peers::transport::{PeerCall, PeerTarget, PeerTransport, TransportError};
use crate::snapshots::group_snapshots::{GroupSnapshots, ReceivedSnapshot};
use crate::storage::SnapshotName;
use clicktally_state::snapshot::SnapshotError;

/// Deadline of one piece.
const PIECE_DEADLINE: Duration = Duration::from_secs(5);
/// How long peers that have applied enough entries, but have no snapshot of them yet, may take to build one.
const HEALED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Fetches a snapshot that reaches at least index `at_least`, from the first of `peers` that has a valid one. Returns
/// `None` if no peer that answers has such a snapshot.
pub(crate) async fn fetch_snapshot(
    peers: &[PeerTarget],
    transport: &dyn PeerTransport,
    snapshots: &GroupSnapshots,
    at_least: u64,
) -> Option<ReceivedSnapshot> {
    let search = async {
        loop {
            // A peer that is itself starting may not have applied enough entries yet.
            let mut will_have_one = false;
            for peer in peers {
                match fetch_from(peer, transport, snapshots, at_least).await {
                    Ok(Fetched::Whole(received)) => return Some(*received),
                    Ok(Fetched::NotYet) => will_have_one = true,
                    Err(error) => tracing::warn!(peer = peer.node, %error, "cannot fetch a snapshot from this peer"),
                }
            }
            if !will_have_one {
                return None;
            }
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(HEALED_WITHIN, search).await.unwrap_or(None)
}

enum Fetched {
    Whole(Box<ReceivedSnapshot>),
    NotYet,
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the peer's snapshot: {0}")]
    Snapshot(#[from] SnapshotError),
    #[error("cannot decode the answer: {0}")]
    Codec(#[from] CodecError),
}

async fn fetch_from(
    peer: &PeerTarget,
    transport: &dyn PeerTransport,
    snapshots: &GroupSnapshots,
    at_least: u64,
) -> Result<Fetched, FetchError> {
    let mut writer = snapshots.begin().map_err(SnapshotError::from)?;
    let mut name: Option<SnapshotName> = None;
    let mut offset = 0;
    loop {
        let request = FetchSnapshot { at_least, name, offset };
        match ask(transport, peer, PeerCall::FetchSnapshot, &request, PIECE_DEADLINE).await? {
            // The peer also answers this if it has deleted the snapshot whose transfer had begun. The next round
            // takes the newest.
            FetchReply::NotYet => return Ok(Fetched::NotYet),
            FetchReply::Piece { name: of, total_bytes, bytes } => {
                name = Some(of);
                offset += bytes.len() as u64;
                writer.write_all(&bytes).map_err(SnapshotError::from)?;
                if offset >= total_bytes || bytes.is_empty() {
                    break;
                }
            }
        }
    }
    // This node serves no requests yet, so decoding on this thread delays none.
    Ok(Fetched::Whole(Box::new(snapshots.check(writer)?)))
}
