//! A replica whose snapshots are all damaged, or too old for what its log was purged to, gets one from a peer before it starts.
//!
//! That is safe because nothing Raft rests on was lost: the vote and every acknowledged entry are in the log still, and all that is
//! missing is what the entries purged amount to, which any member's snapshot holds. A node that lost its vote or acknowledged
//! entries is another matter: it would vote as if it had not ([`crate::healing::log`]).

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
/// How long peers that have applied enough, but have no snapshot of it yet, may take to make one.
const HEALED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Fetches a snapshot that reaches at least to index `at_least`, from the first of `peers` that has a whole one. `None`: nobody
/// that answers has what it takes.
pub(crate) async fn fetch_snapshot(
    peers: &[PeerTarget],
    transport: &dyn PeerTransport,
    snapshots: &GroupSnapshots,
    at_least: u64,
) -> Option<ReceivedSnapshot> {
    let search = async {
        loop {
            // One that is starting itself may not have applied enough yet.
            let mut will_have_one = false;
            for peer in peers {
                match fetch_from(peer, transport, snapshots, at_least).await {
                    Ok(Fetched::Whole(received)) => return Some(*received),
                    Ok(Fetched::NotYet) => will_have_one = true,
                    Err(error) => tracing::warn!(peer = peer.node, %error, "no snapshot from this peer"),
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
    #[error("its snapshot: {0}")]
    Snapshot(#[from] SnapshotError),
    #[error("undecodable: {0}")]
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
            // Also where the one begun is gone meanwhile: the next round takes the newest.
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
    // This node serves nobody yet, so there is nobody whom decoding could delay.
    Ok(Fetched::Whole(Box::new(snapshots.check(writer)?)))
}
