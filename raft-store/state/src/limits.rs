//! What one group may hold at most, and the law by which its memory is charged.
//!
//! Memory is charged by a law of our own, not measured: every replica must reach the same verdict, even if another
//! build runs it. The law charges what grows with traffic: cells, and seen ids. Each of the two parts keeps its charge
//! up to date, and derives it again from a snapshot. [`crate::room`] decides by it which checkpoints must wait.

use crate::seen::SeenCharge;
use crate::windows::CellCharge;

/// A cell without invalid clicks, costs and users. Any change of a charge changes the replicated law.
pub use crate::windows::cell_run::CELL_BYTES;

/// The largest command that may be proposed, so that an entry always fits a call between peers.
pub const COMMAND_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How many entries the tables of one group may have. Apply rejects a command that would exceed a limit.
pub const CAMPAIGNS_MAX: usize = 1_000_000;
pub const NODES_MAX: usize = 1_000;
/// Terms that were replaced before PostgreSQL had them. Each takes some hundred bytes of the head of a snapshot.
pub const REPLACED_TERMS_MAX: usize = 4_096;

/// What a state is charged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldState {
    pub cells: CellCharge,
    pub seen: SeenCharge,
}

impl HeldState {
    /// Bytes of memory, by the law above.
    pub fn bytes(self) -> u64 {
        self.cells.bytes + self.seen.bytes()
    }
}
