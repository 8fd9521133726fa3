//! What one group may hold at most, and the law by which its memory is counted.
//!
//! Memory is counted by a law of our own, not measured: every replica must come to the same verdict, also one of
//! another build. The law counts what grows with traffic: cells, and seen ids. Apply keeps [`HeldState`] up to date,
//! and a restored snapshot derives it again. [`crate::room`] decides by it who has to wait.

use clicktally_proto::identity::seen_ids::SeenBlock;

use crate::windows::cell_runs::CellRuns;

/// A cell without invalid clicks, costs and users. A change of what anything is charged changes the replicated law.
pub use crate::windows::cell_run::CELL_BYTES;

/// The largest command that may be proposed, so that an entry always fits a call between peers.
pub const COMMAND_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bounds what one group may hold; apply rejects what goes beyond, it never grows without end.
pub const CAMPAIGNS_MAX: usize = 1_000_000;
pub const NODES_MAX: usize = 1_000;

/// What a block of seen ids takes beside its ids.
pub const SEEN_BLOCK_BYTES: u64 = 96;

/// What of a state grows with traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldState {
    /// A cell counts as often as there are runs that have it.
    pub cells: u64,
    pub cell_bytes: u64,
    pub seen_blocks: u64,
    /// The bytes of the packed ids.
    pub seen_bytes: u64,
}

impl HeldState {
    /// Bytes of memory, by the law above.
    pub fn bytes(self) -> u64 {
        self.cell_bytes + self.seen_blocks * SEEN_BLOCK_BYTES + self.seen_bytes
    }

    pub(crate) fn add_block(&mut self, block: &SeenBlock) {
        self.seen_blocks += 1;
        self.seen_bytes += block.packed_bytes() as u64;
    }

    pub(crate) fn remove_block(&mut self, block: &SeenBlock) {
        self.seen_blocks -= 1;
        self.seen_bytes -= block.packed_bytes() as u64;
    }

    pub(crate) fn add_cells(&mut self, cells: &CellRuns) {
        self.cells += cells.held() as u64;
        self.cell_bytes += cells.bytes();
    }

    pub(crate) fn remove_cells(&mut self, cells: &CellRuns) {
        self.cells -= cells.held() as u64;
        self.cell_bytes -= cells.bytes();
    }
}
