//! A frozen state as chunks. Goes on for seconds on a large state, beside the applies; holds one chunk.

use std::io::Write;
use std::mem;
use std::sync::Arc;

use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::identity::shard_key::ShardId;

use super::chunk_writer::ChunkWriter;
use super::{CAMPAIGNS_PER_CHUNK, CELLS_PER_CHUNK, ChunkKind, RunPart, SEEN_BYTES_PER_CHUNK, SnapshotError};
use crate::catalogue::Campaign;
use crate::group_state::{FrozenState, GroupState};
use crate::windows::cell::Cell;
use crate::windows::cell_run::CellId;
use crate::windows::cell_runs::MergeAllowance;

/// Writes a whole snapshot and returns its bytes. `meta` says what the snapshot stands for: one frame of the codec,
/// opaque here.
pub fn encode(meta: &[u8], state: &GroupState, sink: &mut dyn Write) -> Result<u64, SnapshotError> {
    let mut chunks = ChunkWriter::begin(sink)?;
    chunks.frame(ChunkKind::Meta, meta)?;
    if is_broken(Mutant::SnapshotMergesRuns) {
        let mut merged = state.clone();
        merged.compact_windows(&mut MergeAllowance::unlimited(), |_| false);
        put_state(&merged, &mut chunks)?;
    } else {
        put_state(state, &mut chunks)?;
    }
    chunks.end()
}

impl FrozenState {
    /// Writes the state in the form of a snapshot, but without the log entry it stands for: two replicas that applied
    /// the same write the same. Bytes written.
    pub fn write_to(&self, sink: &mut dyn Write) -> Result<u64, SnapshotError> {
        let mut chunks = ChunkWriter::begin(sink)?;
        put_state(self.state(), &mut chunks)?;
        chunks.end()
    }
}

fn put_state(state: &GroupState, chunks: &mut ChunkWriter<'_>) -> Result<(), SnapshotError> {
    chunks.chunk(ChunkKind::Head, state)?;
    put_campaigns(state, chunks)?;
    put_seen(state, chunks)?;
    put_windows(state, chunks)
}

fn put_campaigns(state: &GroupState, chunks: &mut ChunkWriter<'_>) -> Result<(), SnapshotError> {
    let mut waiting: Vec<(CampaignId, &Arc<Campaign>)> = Vec::new();
    for (id, campaign) in &state.campaigns {
        waiting.push((*id, campaign));
        if waiting.len() == CAMPAIGNS_PER_CHUNK {
            chunks.chunk(ChunkKind::Campaigns, &mem::take(&mut waiting))?;
        }
    }
    chunks.counts.campaigns = state.campaigns.len() as u64;
    if waiting.is_empty() { Ok(()) } else { chunks.chunk(ChunkKind::Campaigns, &waiting) }
}

fn put_seen(state: &GroupState, chunks: &mut ChunkWriter<'_>) -> Result<(), SnapshotError> {
    if is_broken(Mutant::SnapshotWithoutSeenIds) {
        return Ok(());
    }
    let mut waiting: Vec<(ShardId, &Arc<SeenBlock>)> = Vec::new();
    let mut bytes = 0;
    for (shard, minutes) in &state.seen {
        for block in minutes.values().flatten() {
            waiting.push((*shard, block));
            bytes += block.packed_bytes();
            chunks.counts.seen_blocks += 1;
            if bytes >= SEEN_BYTES_PER_CHUNK || waiting.len() == CELLS_PER_CHUNK {
                chunks.chunk(ChunkKind::Seen, &mem::take(&mut waiting))?;
                bytes = 0;
            }
        }
    }
    if waiting.is_empty() { Ok(()) } else { chunks.chunk(ChunkKind::Seen, &waiting) }
}

fn put_windows(state: &GroupState, chunks: &mut ChunkWriter<'_>) -> Result<(), SnapshotError> {
    for (minute, window) in &state.windows {
        chunks.chunk(ChunkKind::Window, &(minute, window))?;
        chunks.counts.windows += 1;
        for run in window.cells.runs() {
            chunks.counts.cells += run.len() as u64;
            let mut rows = run.rows().peekable();
            let mut opens = true;
            while rows.peek().is_some() {
                let cells: Vec<(CellId, Cell)> = rows.by_ref().take(CELLS_PER_CHUNK).collect();
                chunks
                    .chunk(ChunkKind::Cells, &RunPart { opens: mem::take(&mut opens), newest: run.newest(), cells })?;
            }
        }
    }
    Ok(())
}
