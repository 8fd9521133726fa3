//! Transfers a snapshot from the leader to a member in pieces. Each end holds at most one piece in memory.
//!
//! Each piece is a frame of the codec, so it has a checksum. The whole snapshot has its own checksum; the receiver
//! reads it back from disk and decodes it before openraft sees it. A transfer is identified by the leader, the
//! snapshot and a number, so the pieces of two transfers never mix. A transfer that breaks off starts again.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::Mutex;

use crate::blocking;
use crate::peers::messages::{SNAPSHOT_BYTES_MAX, SNAPSHOT_PIECE_BYTES, SnapshotPiece, TransferId};
use crate::snapshots::group_snapshots::{GroupSnapshots, StoredSnapshot};
use crate::snapshots::snapshot_data::{Snapshot, SnapshotData};
use crate::storage::SnapshotWriter;
use crate::type_config::{SnapshotMeta, Vote};
use clicktally_state::snapshot::SnapshotError;

/// A snapshot being sent.
pub(crate) struct OutgoingSnapshot {
    id: TransferId,
    stored: Box<StoredSnapshot>,
    sent: u64,
}

impl OutgoingSnapshot {
    pub(crate) fn new(vote: Vote, meta: SnapshotMeta, stored: Box<StoredSnapshot>) -> OutgoingSnapshot {
        /// Numbers the transfers of this process. A later process of this node leads in a later term.
        static TRANSFERS: AtomicU64 = AtomicU64::new(0);
        let number = TRANSFERS.fetch_add(1, Ordering::Relaxed);
        let id = TransferId { vote, meta, number, total_bytes: stored.bytes };
        OutgoingSnapshot { id, stored, sent: 0 }
    }

    /// Reads the next piece. May block on a disk. Keeps none of the bytes.
    pub(crate) fn next_piece(&mut self) -> io::Result<SnapshotPiece> {
        let offset = self.sent;
        let bytes = read_piece(&mut self.stored, offset)?;
        self.sent += bytes.len() as u64;
        Ok(SnapshotPiece { id: self.id.clone(), offset, bytes })
    }
}

/// Reads a stored snapshot from `offset` on, up to the size of one piece.
pub(crate) fn read_piece(stored: &mut StoredSnapshot, offset: u64) -> io::Result<Bytes> {
    let left = stored.bytes.saturating_sub(offset).min(SNAPSHOT_PIECE_BYTES as u64);
    let mut bytes = Vec::with_capacity(SNAPSHOT_PIECE_BYTES);
    stored.reader.seek(io::SeekFrom::Start(offset))?;
    (&mut *stored.reader).take(left).read_to_end(&mut bytes)?;
    Ok(Bytes::from(bytes))
}

/// The one snapshot that a group is receiving. A new transfer replaces it.
pub(crate) struct IncomingSnapshots {
    snapshots: GroupSnapshots,
    /// The slot is empty while a piece is written. If the call is cancelled, the snapshot is dropped with it, and the
    /// transfer starts again.
    slot: Mutex<Option<IncomingSnapshot>>,
}

struct IncomingSnapshot {
    id: TransferId,
    received: u64,
    writer: Box<dyn SnapshotWriter>,
}

/// The result of a piece.
pub(crate) enum Taken {
    /// Continue at this byte; 0 restarts the transfer.
    Continue(u64),
    Whole(Vote, Snapshot),
    /// All pieces arrived, but they are not a valid snapshot.
    Damaged(String),
}

impl IncomingSnapshots {
    pub(crate) fn new(snapshots: GroupSnapshots) -> IncomingSnapshots {
        IncomingSnapshots { snapshots, slot: Mutex::new(None) }
    }

    /// Adds a piece. Ignores a piece that does not continue the current transfer.
    pub(crate) async fn take(&self, piece: SnapshotPiece) -> Result<Taken, SnapshotError> {
        if piece.id.total_bytes > SNAPSHOT_BYTES_MAX {
            return Ok(Taken::Damaged(format!("the snapshot exceeds the limit of {SNAPSHOT_BYTES_MAX} bytes")));
        }
        let mut slot = self.slot.lock().await;
        if piece.offset == 0 {
            let writer = self.snapshots.begin()?;
            *slot = Some(IncomingSnapshot { id: piece.id.clone(), received: 0, writer });
        }
        let Some(mut incoming) = slot.take() else { return Ok(Taken::Continue(0)) };
        let end = piece.offset.checked_add(piece.bytes.len() as u64);
        let continues = incoming.id == piece.id
            && incoming.received == piece.offset
            && end.is_some_and(|end| end <= incoming.id.total_bytes);
        if !continues {
            let received = incoming.received;
            *slot = Some(incoming);
            return Ok(Taken::Continue(received));
        }
        let snapshots = self.snapshots.clone();
        let written = blocking::run(move || -> Result<_, SnapshotError> {
            incoming.writer.write_all(&piece.bytes)?;
            incoming.received += piece.bytes.len() as u64;
            if incoming.received < incoming.id.total_bytes {
                return Ok(Err(incoming));
            }
            let received = snapshots.check(incoming.writer)?;
            if received.meta != incoming.id.meta {
                return Err(SnapshotError::Damaged("its meta differs from the announced meta".to_owned()));
            }
            Ok(Ok((incoming.id.vote, received)))
        });
        let written = written.await.map_err(|_| io::Error::other("the node is shutting down"))?;
        match written {
            Ok(Err(incoming)) => {
                let received = incoming.received;
                *slot = Some(incoming);
                Ok(Taken::Continue(received))
            }
            Ok(Ok((vote, received))) => {
                let meta = received.meta.clone();
                Ok(Taken::Whole(vote, Snapshot { meta, snapshot: SnapshotData::Received(Box::new(received)) }))
            }
            Err(SnapshotError::Damaged(reason)) => Ok(Taken::Damaged(reason)),
            Err(error) => Err(error),
        }
    }
}
