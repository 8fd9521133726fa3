//! Writes a frozen state as chunks. Takes seconds for a large state, beside the applies, and holds one chunk.

use std::io::Write;
use std::mem;
use std::sync::Arc;

use clicktally_proto::codec;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::identity::shard_key::ShardId;

use super::chunk_writer::ChunkWriter;
use super::{
    CAMPAIGNS_PER_CHUNK, CELLS_PER_CHUNK, ChunkKind, RunPart, SEEN_BYTES_PER_CHUNK, SnapshotError, format, format_3,
};
use crate::catalogue::Campaign;
use crate::group_state::{FrozenState, GroupState};
use crate::head::HeadWriter;
use crate::windows::cell::Cell;
use crate::windows::cell_run::CellId;
use crate::windows::cell_runs::MergeAllowance;

/// Writes a whole snapshot and returns its bytes. `meta` says what the snapshot stands for: one frame of the codec,
/// opaque here.
pub fn encode(meta: &[u8], state: &GroupState, sink: &mut dyn Write) -> Result<u64, SnapshotError> {
    if is_broken(Mutant::SnapshotMergesRuns) {
        let mut merged = state.clone();
        merged.windows.compact(&mut MergeAllowance::unlimited(), |_| false);
        return put_state(&merged, writable_format(state), Some(meta), sink);
    }
    put_state(state, writable_format(state), Some(meta), sink)
}

impl FrozenState {
    /// Writes the state in the form of a snapshot, but without the log entry it stands for: two replicas that applied
    /// the same entries write the same. Bytes written.
    pub fn write_to(&self, sink: &mut dyn Write) -> Result<u64, SnapshotError> {
        put_state(self.state(), writable_format(self.state()), None, sink)
    }
}

/// The newest format that every registered node reads.
fn writable_format(state: &GroupState) -> u16 {
    format::newest_of_level(state.roster.common_level())
}

pub(super) fn put_state(
    state: &GroupState,
    format: u16,
    meta: Option<&[u8]>,
    sink: &mut dyn Write,
) -> Result<u64, SnapshotError> {
    let mut head = HeadWriter::new(format);
    state.put_head(&mut head)?;
    let (format, fields) = head.finish();
    let head = if format == 3 { format_3::written(&fields) } else { codec::encode(&fields) };
    let mut chunks = ChunkWriter::begin(sink, format)?;
    if let Some(meta) = meta {
        chunks.frame(ChunkKind::Meta, meta)?;
    }
    chunks.frame(ChunkKind::Head, &head.map_err(SnapshotError::Contents)?)?;
    put_campaigns(state, &mut chunks)?;
    put_seen(state, &mut chunks)?;
    put_windows(state, &mut chunks)?;
    chunks.end()
}

fn put_campaigns(state: &GroupState, chunks: &mut ChunkWriter<'_>) -> Result<(), SnapshotError> {
    let mut waiting: Vec<(CampaignId, &Arc<Campaign>)> = Vec::new();
    for (id, campaign) in state.campaigns() {
        waiting.push((*id, campaign));
        if waiting.len() == CAMPAIGNS_PER_CHUNK {
            chunks.chunk(ChunkKind::Campaigns, &mem::take(&mut waiting))?;
        }
    }
    chunks.counts.campaigns = state.campaigns().len() as u64;
    if waiting.is_empty() { Ok(()) } else { chunks.chunk(ChunkKind::Campaigns, &waiting) }
}

fn put_seen(state: &GroupState, chunks: &mut ChunkWriter<'_>) -> Result<(), SnapshotError> {
    if is_broken(Mutant::SnapshotWithoutSeenIds) {
        return Ok(());
    }
    let mut waiting: Vec<(ShardId, &Arc<SeenBlock>)> = Vec::new();
    let mut bytes = 0;
    for (shard, block) in state.seen.blocks() {
        waiting.push((shard, block));
        bytes += block.packed_bytes();
        chunks.counts.seen_blocks += 1;
        if bytes >= SEEN_BYTES_PER_CHUNK || waiting.len() == CELLS_PER_CHUNK {
            chunks.chunk(ChunkKind::Seen, &mem::take(&mut waiting))?;
            bytes = 0;
        }
    }
    if waiting.is_empty() { Ok(()) } else { chunks.chunk(ChunkKind::Seen, &waiting) }
}

fn put_windows(state: &GroupState, chunks: &mut ChunkWriter<'_>) -> Result<(), SnapshotError> {
    for (minute, window) in state.windows() {
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
