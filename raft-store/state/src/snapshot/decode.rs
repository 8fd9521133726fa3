//! Decodes a state from its chunks and checks it against the end of the snapshot. No other code has seen the result
//! yet: the caller swaps it in whole, or drops it.

use std::io::Read;
use std::sync::Arc;

use clicktally_proto::codec;
use clicktally_proto::event_time::Minute;
use clicktally_proto::identity::ids::CampaignId;
use clicktally_proto::identity::seen_ids::SeenBlock;
use clicktally_proto::identity::shard_key::{GroupId, ShardId};

use super::chunk_reader::{Chunk, ChunkReader};
use super::{ChunkKind, RunPart, SnapshotCounts, SnapshotError, damaged, format_3};
use crate::catalogue::Campaign;
use crate::group_state::GroupState;
use crate::head::HeadReader;
use crate::windows::cell_run::CellRun;
use crate::windows::window::Window;

/// A window, and its runs as far as they have been read.
type OpenWindow = (Minute, Window, Vec<CellRun>);

/// Reads a whole snapshot of a group, as a build of this command `level`: the frame that says what it stands for, and
/// the state.
pub fn decode(group: GroupId, source: &mut dyn Read, level: u16) -> Result<(Vec<u8>, GroupState), SnapshotError> {
    let mut chunks = ChunkReader::begin(source, level)?;
    let meta = first(&mut chunks)?;
    Ok((meta, take_state(group, chunks)?))
}

impl GroupState {
    /// Reads what [`FrozenState::write_to`] wrote: a new state, or the reason why there is none. The errors are those
    /// of a snapshot: its checksums find damage, and a damaged state is never applied.
    pub fn read_from(group: GroupId, source: &mut dyn Read, level: u16) -> Result<GroupState, SnapshotError> {
        take_state(group, ChunkReader::begin(source, level)?)
    }
}

fn take_state(group: GroupId, mut chunks: ChunkReader<'_>) -> Result<GroupState, SnapshotError> {
    let mut state = take_head(&mut chunks)?;
    if state.group != group {
        return Err(damaged(format!("it is of group {}", state.group.0)));
    }
    let mut counts = SnapshotCounts { chunks: chunks.counts.chunks, ..SnapshotCounts::default() };
    let mut window: Option<OpenWindow> = None;
    while let Some(chunk) = chunks.next()? {
        take(&mut chunks, &chunk, &mut state, &mut window, &mut counts)?;
    }
    close(window, &mut state)?;
    counts.chunks = chunks.counts.chunks;
    if counts != chunks.counts {
        return Err(damaged(format!("{counts:?} are there, its end says {:?}", chunks.counts)));
    }
    Ok(state)
}

fn take_head(chunks: &mut ChunkReader<'_>) -> Result<GroupState, SnapshotError> {
    let chunk = expect(chunks, ChunkKind::Head)?;
    let frame = chunks.frame(&chunk)?;
    let fields = if chunks.format == 3 { format_3::read(&frame) } else { codec::decode(&frame) };
    let fields = fields.map_err(|error| SnapshotError::of_contents("a Head chunk", error))?;
    let mut head = HeadReader::new(chunks.format, fields);
    let state = GroupState::take_head(&mut head)?;
    head.finish()?;
    Ok(state)
}

/// What a snapshot stands for, from its first chunk; the rest is not looked at.
pub fn read_meta(source: &mut dyn Read, level: u16) -> Result<Vec<u8>, SnapshotError> {
    first(&mut ChunkReader::begin(source, level)?)
}

/// Checks every checksum and the digest, without building a state.
pub fn verify(source: &mut dyn Read, level: u16) -> Result<(), SnapshotError> {
    let mut chunks = ChunkReader::begin(source, level)?;
    while chunks.next()?.is_some() {}
    Ok(())
}

fn first(chunks: &mut ChunkReader<'_>) -> Result<Vec<u8>, SnapshotError> {
    let meta = expect(chunks, ChunkKind::Meta)?;
    chunks.frame(&meta)
}

fn expect(chunks: &mut ChunkReader<'_>, kind: ChunkKind) -> Result<Chunk, SnapshotError> {
    let found = chunks.next()?.filter(|chunk| chunk.kind == kind);
    found.ok_or_else(|| damaged(format!("its {kind:?} is missing")))
}

fn take(
    chunks: &mut ChunkReader<'_>,
    chunk: &Chunk,
    state: &mut GroupState,
    window: &mut Option<OpenWindow>,
    counts: &mut SnapshotCounts,
) -> Result<(), SnapshotError> {
    match chunk.kind {
        ChunkKind::Campaigns => {
            let campaigns: Vec<(CampaignId, Arc<Campaign>)> = chunks.contents(chunk)?;
            counts.campaigns += campaigns.len() as u64;
            for (id, campaign) in campaigns {
                if !state.catalogue.restore(id, campaign) {
                    return Err(damaged(format!("campaign {id} occurs twice")));
                }
            }
        }
        ChunkKind::Seen => {
            let blocks: Vec<(ShardId, Arc<SeenBlock>)> = chunks.contents(chunk)?;
            counts.seen_blocks += blocks.len() as u64;
            blocks.into_iter().for_each(|(shard, block)| state.seen.add(shard, block));
        }
        ChunkKind::Window => {
            let (minute, opened) = chunks.contents(chunk)?;
            close(window.replace((minute, opened, Vec::new())), state)?;
            counts.windows += 1;
        }
        ChunkKind::Cells => {
            let (.., runs) = window.as_mut().ok_or_else(|| damaged("there are cells before the first window"))?;
            let RunPart { opens, newest, cells } = chunks.contents(chunk)?;
            counts.cells += cells.len() as u64;
            if opens {
                runs.push(CellRun::begun(newest));
            }
            let run = runs.last_mut().ok_or_else(|| damaged("a window's cells begin in the middle of a run"))?;
            for (id, cell) in cells {
                if !run.restore(id, cell) {
                    return Err(damaged("the cells of a run are not in order"));
                }
            }
        }
        ChunkKind::Meta | ChunkKind::Head | ChunkKind::End => {
            return Err(damaged(format!("a {:?} chunk is in the wrong place", chunk.kind)));
        }
    }
    Ok(())
}

/// A window goes into the state once its cells are there.
fn close(window: Option<OpenWindow>, state: &mut GroupState) -> Result<(), SnapshotError> {
    let Some((minute, mut window, runs)) = window else { return Ok(()) };
    runs.into_iter().for_each(|run| window.cells.restore(run.sealed()));
    let is_new = state.windows.restore(minute, window);
    if is_new { Ok(()) } else { Err(damaged(format!("minute {} has two windows", minute.0))) }
}
