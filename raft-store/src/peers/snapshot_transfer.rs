//! A snapshot on its way from the leader to a member, in pieces: neither end holds more than one of them.
//!
//! Each piece is a frame of the codec and so has a checksum; the whole has its own, and is read back from the receiver's disk and
//! decoded before openraft hears of it. Transfers are told apart by who leads, what is sent, and a number: pieces of two never mix,
//! and one that breaks off begins again.

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
        /// Numbers the transfers of this process; a later one leads in a later term.
        static TRANSFERS: AtomicU64 = AtomicU64::new(0);
        let number = TRANSFERS.fetch_add(1, Ordering::Relaxed);
        let id = TransferId { vote, meta, number, total_bytes: stored.bytes };
        OutgoingSnapshot { id, stored, sent: 0 }
    }

    /// The next piece; may block on a disk. None of it is kept.
    pub(crate) fn next_piece(&mut self) -> io::Result<SnapshotPiece> {
        let offset = self.sent;
        let bytes = read_piece(&mut self.stored, offset)?;
        self.sent += bytes.len() as u64;
        Ok(SnapshotPiece { id: self.id.clone(), offset, bytes })
    }
}

/// What a stored snapshot has from `offset` on, up to the size of a piece.
pub(crate) fn read_piece(stored: &mut StoredSnapshot, offset: u64) -> io::Result<Bytes> {
    let left = stored.bytes.saturating_sub(offset).min(SNAPSHOT_PIECE_BYTES as u64);
    let mut bytes = Vec::with_capacity(SNAPSHOT_PIECE_BYTES);
    stored.reader.seek(io::SeekFrom::Start(offset))?;
    (&mut *stored.reader).take(left).read_to_end(&mut bytes)?;
    Ok(Bytes::from(bytes))
}

/// The one snapshot being received by a group; another one takes its place.
pub(crate) struct IncomingSnapshots {
    snapshots: GroupSnapshots,
    /// Taken out while its piece is written: a call that is given up takes it along, and the transfer begins again.
    slot: Mutex<Option<IncomingSnapshot>>,
}

struct IncomingSnapshot {
    id: TransferId,
    received: u64,
    writer: Box<dyn SnapshotWriter>,
}

/// What became of a piece.
pub(crate) enum Taken {
    /// Go on at this byte; 0 begins again.
    Continue(u64),
    Whole(Vote, Snapshot),
    /// All pieces are here, and they do not make a snapshot.
    Damaged(String),
}

impl IncomingSnapshots {
    pub(crate) fn new(snapshots: GroupSnapshots) -> IncomingSnapshots {
        IncomingSnapshots { snapshots, slot: Mutex::new(None) }
    }

    /// Adds a piece. One that does not continue what is there changes nothing.
    pub(crate) async fn take(&self, piece: SnapshotPiece) -> Result<Taken, SnapshotError> {
        if piece.id.total_bytes > SNAPSHOT_BYTES_MAX {
            return Ok(Taken::Damaged(format!("snapshots have {SNAPSHOT_BYTES_MAX} bytes at most")));
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
                return Err(SnapshotError::Damaged("it stands for another log entry than announced".to_owned()));
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
