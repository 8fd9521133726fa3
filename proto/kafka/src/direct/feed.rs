//! Carries one partition's batches from the fetcher to its reader, and counts the memory that all partitions hold.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use clicktally_proto::click_log::LogError;
use clicktally_proto::identity::shard_key::ShardId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::aborted_transactions::AbortedTransactions;

/// Bytes of answers in memory. An answer on its way counts at its largest size.
#[derive(Debug)]
pub(super) struct NodeMemory {
    pub(super) held_bytes_max: usize,
    held_bytes: AtomicUsize,
    /// Whether a task waits for [`NodeMemory::room`]. If none does, readers save the notification.
    is_awaited: AtomicBool,
    pub(super) room: Notify,
}

impl NodeMemory {
    pub(super) fn new(held_bytes_max: usize) -> NodeMemory {
        NodeMemory {
            held_bytes_max,
            held_bytes: AtomicUsize::default(),
            is_awaited: AtomicBool::default(),
            room: Notify::new(),
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn hold(self: &Arc<NodeMemory>, bytes: usize) -> Hold {
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        Hold { bytes, memory: Arc::clone(self) }
    }

    /// 1. Listen to [`NodeMemory::room`], 2. call this, 3. look again whether there is room: so no notification is
    ///    missed.
    pub(super) fn want_room(&self) {
        self.is_awaited.store(true, Ordering::SeqCst);
    }

    pub(super) fn tell(&self) {
        if self.is_awaited.swap(false, Ordering::SeqCst) {
            self.room.notify_waiters();
        }
    }
}

/// Gives back its bytes when dropped.
#[derive(Debug)]
pub(super) struct Hold {
    bytes: usize,
    memory: Arc<NodeMemory>,
}

impl Hold {
    /// Sets the true size, once it is known.
    pub(super) fn resize(&mut self, bytes: usize) {
        self.memory.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.memory.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.memory.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Whole batches of one partition, as they came. They pin the answer that they came in.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) batches: Bytes,
    /// Which of them to leave out.
    pub(super) aborted: AbortedTransactions,
    pub(super) answer: Arc<Hold>,
}

/// What the fetcher knows of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FetchPosition {
    pub(super) offset: u64,
    /// The leader's epoch of the last batch fetched, −1 at first. By it a broker notices that its history differs from
    /// ours.
    pub(super) last_epoch: i32,
    /// Bytes of the answers that the partition's chunks pin.
    pub(super) pinned_bytes: usize,
    /// Number of the last answer with records of this partition.
    pub(super) served: u64,
}

#[derive(Debug)]
pub(super) struct Feed {
    pub(super) shard: ShardId,
    memory: Arc<NodeMemory>,
    state: Mutex<FeedState>,
}

#[derive(Debug)]
struct FeedState {
    position: FetchPosition,
    chunks: VecDeque<Chunk>,
    /// Reported after the chunks, which were fetched before it.
    failure: Option<LogError>,
}

impl Feed {
    pub(super) fn new(shard: ShardId, from: u64, memory: Arc<NodeMemory>) -> Feed {
        let position = FetchPosition { offset: from, last_epoch: -1, pinned_bytes: 0, served: 0 };
        Feed { shard, memory, state: Mutex::new(FeedState { position, chunks: VecDeque::new(), failure: None }) }
    }

    /// `None` after a failure: nothing is fetched behind it.
    pub(super) fn position(&self) -> Option<FetchPosition> {
        let state = self.state.lock();
        state.failure.is_none().then_some(state.position)
    }

    pub(super) fn push(&self, chunk: Chunk, next_offset: u64, last_epoch: i32, served: u64) {
        let mut state = self.state.lock();
        assert!(next_offset > state.position.offset, "a chunk moves its partition forward");
        let pinned_bytes = state.position.pinned_bytes + chunk.answer.bytes;
        state.position = FetchPosition { offset: next_offset, last_epoch, pinned_bytes, served };
        state.chunks.push_back(chunk);
    }

    /// Keeps the first failure.
    pub(super) fn fail(&self, error: LogError) {
        self.state.lock().failure.get_or_insert(error);
    }

    /// Takes back the chunk that was read, if any, and returns the next one that has arrived.
    pub(super) fn exchange(&self, read: Option<Chunk>) -> Result<Option<Chunk>, LogError> {
        let mut state = self.state.lock();
        let is_freed = read.is_some();
        if let Some(read) = read {
            state.position.pinned_bytes -= read.answer.bytes;
        }
        let next = match (state.chunks.pop_front(), &state.failure) {
            (Some(chunk), _) => Ok(Some(chunk)),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Ok(None),
        };
        drop(state);
        if is_freed {
            self.memory.tell();
        }
        next
    }
}
