//! What a snapshot looks like, in a file and on its way to a peer: a row of chunks, so that neither end ever holds it
//! whole.
//!
//! ```text
//! "ctsnap" ‖ format u16 ‖ crc u32                         the opening: tells an unknown format from damage
//! kind u8 ‖ raw u32 ‖ stored u32 ‖ crc u32 ‖ zstd bytes   a chunk, any number of them
//! ```
//!
//! Numbers are little-endian; a chunk's CRC-32 covers its head and its bytes as stored, which are one compressed
//! frame of the codec. The chunks, in this order: meta (the log id and members a snapshot stands for), head
//! (everything small: settings, nodes, shards, watermarks), campaigns, seen ids, then each window followed by its
//! runs of cells, and the end. The end counts what came before and carries its SHA-256: without it nothing before it
//! is valid, so a torn file never passes for a shorter state.
//!
//! The head has tagged fields, so it can be extended ([`crate::head`]). The records in the other chunks have none: a
//! fact about a campaign or a window that is added later is a field of the head, or a chunk of a new kind, by id.
//!
//! The order of everything is that of keys, so two replicas with the same state write the same bytes (CT-3).

mod chunk_reader;
mod chunk_writer;
mod decode;
mod encode;
mod format;
mod format_3;

use std::io;

use clicktally_proto::codec::CodecError;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::COMMAND_BYTES_MAX;
use crate::windows::cell::Cell;
use crate::windows::cell_run::CellId;

pub use self::decode::{decode, read_meta, verify};
pub use self::encode::encode;
use self::format::FORMAT_MIN;
use crate::head::HeadError;

const MAGIC: &[u8; 6] = b"ctsnap";
const OPENING_BYTES: usize = MAGIC.len() + 2 + 4;
const CHUNK_HEAD_BYTES: usize = 1 + 4 + 4 + 4;
/// Fast, and what is left to gain above it is a tenth (docs/decisions/009-snapshots.md).
const ZSTD_LEVEL: i32 = 1;

/// Cells in a chunk: some 100 KiB before they are compressed.
const CELLS_PER_CHUNK: usize = 4_096;
const CAMPAIGNS_PER_CHUNK: usize = 4_096;
/// A chunk of seen ids is closed above this.
const SEEN_BYTES_PER_CHUNK: usize = 256 * 1024;
/// The largest chunk before compression, and with it what writer and reader hold of a snapshot at a time. One block
/// of seen ids may be as large as the command that brought it.
const CHUNK_BYTES_MAX: usize = COMMAND_BYTES_MAX + 2 * SEEN_BYTES_PER_CHUNK;

/// Cells of a window, in order, of one of its runs, or of that and more parts behind this one. The runs are kept
/// apart because what a state is charged depends on them, and with it what apply refuses.
#[derive(Debug, Serialize, Deserialize)]
struct RunPart {
    /// The first of its run.
    opens: bool,
    /// The newest entry that changed any cell of the run.
    newest: u64,
    cells: Vec<(CellId, Cell)>,
}

/// What a chunk holds. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum ChunkKind {
    Meta = 1,
    Head = 2,
    Campaigns = 3,
    Seen = 4,
    Window = 5,
    Cells = 6,
    End = 7,
}

impl ChunkKind {
    const ALL: [ChunkKind; 7] = [
        ChunkKind::Meta,
        ChunkKind::Head,
        ChunkKind::Campaigns,
        ChunkKind::Seen,
        ChunkKind::Window,
        ChunkKind::Cells,
        ChunkKind::End,
    ];

    fn of(number: u8) -> Option<ChunkKind> {
        ChunkKind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// What a snapshot holds, by count; its end says so too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotCounts {
    pub chunks: u64,
    pub campaigns: u64,
    pub seen_blocks: u64,
    pub windows: u64,
    pub cells: u64,
}

/// The last chunk.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    counts: SnapshotCounts,
    /// SHA-256 of every byte before this chunk.
    digest: [u8; 32],
}

#[derive(Debug, Error)]
pub enum SnapshotError {
    #[error("it cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// To be set aside, never to be applied.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Whole, but not for this build: setting it aside would throw away what the next build could read.
    #[error("its format is {found}, and this build reads formats {FORMAT_MIN} to {newest}: {remedy}", remedy = remedy(*.found))]
    Format { found: u16, newest: u16 },
    #[error("its contents are not for this build: {0}")]
    Contents(CodecError),
}

impl SnapshotError {
    /// Why a part of a snapshot cannot be decoded: another build wrote it, or it is damaged.
    pub fn of_contents(part: &str, error: CodecError) -> SnapshotError {
        match error {
            CodecError::Version(_) => SnapshotError::Contents(error),
            error => damaged(format!("{part}: {error}")),
        }
    }
}

impl From<HeadError> for SnapshotError {
    fn from(error: HeadError) -> SnapshotError {
        match error {
            HeadError::Codec { tag, error } => SnapshotError::of_contents(&format!("field {tag:?} of its head"), error),
            error => damaged(error.to_string()),
        }
    }
}

/// What to do about a snapshot of another format.
fn remedy(format: u16) -> &'static str {
    if format < FORMAT_MIN {
        "an older build wrote it; start this node with that build again, or remove it from the cluster and add it back empty"
    } else {
        "a newer build wrote it; upgrade this node first"
    }
}

fn damaged(what: impl Into<String>) -> SnapshotError {
    SnapshotError::Damaged(what.into())
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
