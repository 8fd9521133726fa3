//! Planted faults for tests. Only builds with debug assertions have them; release builds compile them away.
//!
//! * `CLICKTALLY_FAIL_AT=point:n` aborts the process when it reaches the named point for the n-th time, as `kill -9`
//!   would.
//! * `CLICKTALLY_BREAK=mutant` breaks one promise (see [`Mutant`]), so that a test can show that its check notices it.
//! * `CLICKTALLY_LOSE=point:n` loses every n-th message received at the named point, as a network may.

macro_rules! mutants {
    ($($(#[$doc:meta])+ $name:ident = $text:literal,)+) => {
        /// One promise broken on purpose, in the way a plausible mistake would break it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[$doc])+ $name,)+
        }

        impl Mutant {
            pub const ALL: &'static [Mutant] = &[$(Mutant::$name,)+];

            /// The name that `CLICKTALLY_BREAK` takes.
            pub fn name(self) -> &'static str {
                match self {
                    $(Mutant::$name => $text,)+
                }
            }
        }
    };
}

mutants! {
    /// Clicks are counted without checking the ids already seen.
    Identity = "identity",
    /// Counts are merged without comparing the checkpoint's offsets with the committed ones.
    Offset = "offset",
    /// Rows are added up in PostgreSQL instead of replaced by revision.
    Sink = "sink",
    /// A checkpoint of a former owner is applied.
    EpochUnchecked = "epoch-unchecked",
    /// A partial count replaces the merged count instead of being added to it.
    MergeReplaces = "merge-replaces",
    /// A shard that has not read to the log's end still follows the clock.
    WatermarkByTimer = "watermark-by-timer",
    /// A log that ends before the position of its reader counts as read to its end.
    LostTailProves = "lost-tail-proves",
    /// A proof of emptiness carries the time of the answer instead of that of the question.
    ProofAfterAnswer = "proof-after-answer",
    /// A new owner starts without its predecessor's watermark, and apply accepts any watermark of a checkpoint.
    WatermarkGoesBack = "watermark-goes-back",
    /// Seen ids are forgotten when their window has fired, not when it is final.
    DedupEvictedEarly = "dedup-evicted-early",
    /// Snapshots leave out the seen ids.
    SnapshotWithoutSeenIds = "snapshot-without-seen-ids",
    /// Snapshots hold each window as one run of cells, and so does a replica that restores one.
    SnapshotMergesRuns = "snapshot-merges-runs",
    /// Rows replace each other in PostgreSQL regardless of their revision.
    UpsertUnversioned = "upsert-unversioned",
    /// The sink's offsets are committed before their rows.
    SinkOffsetsFirst = "sink-offsets-first",
    /// Windows are reported as published before they are.
    ReportedUnpublished = "reported-unpublished",
    /// A checkpoint is proposed before its late clicks are durable.
    LateAfterCommit = "late-after-commit",
    /// Late clicks are counted as late, but not sent to the side output.
    LateDropped = "late-dropped",
    /// A click dated far ahead of its arrival is counted like any other.
    FarAheadCounted = "far-ahead-counted",
    /// A click in another shard's partition is counted where it is found.
    MisroutedCounted = "misrouted-counted",
    /// The next checkpoint is proposed before the one before it is committed.
    CutUncommitted = "cut-uncommitted",
    /// An offset gap is treated as a success.
    GapTakenForSuccess = "gap-taken-for-success",
    /// Windows leave replicated state before they are published.
    EvictedUnpublished = "evicted-unpublished",
    /// Assignments do not compare the expected epoch.
    MoveEpochUnchecked = "move-epoch-unchecked",
    /// A reader that is opened begins at the log's end.
    ResetToLatest = "reset-to-latest",
    /// A stale replica answers that a budget may be spent.
    StalenessIgnored = "staleness-ignored",
    /// A positive budget answer stays valid ten times too long.
    AnswerOutlives = "answer-outlives",
    /// A budget is charged twice for every click.
    SpendTwice = "spend-twice",
    /// Wall clocks decide whether a node is dead.
    LeaseByWallClock = "lease-by-wall-clock",
    /// An unreadable record leaves no trace in the outcomes.
    GarbageSkipped = "garbage-skipped",
    /// A halted shard is not reported.
    HaltUnsaid = "halt-unsaid",
    /// An entry is acknowledged to the leader before it is on the disk.
    AckBeforeFsync = "ack-before-fsync",
    /// A failed fsync is treated as a success.
    FsyncErrorIgnored = "fsync-error-ignored",
    /// A vote is given before it is on the disk.
    VoteNotDurable = "vote-not-durable",
    /// Checksums of data read from a disk are not checked.
    ChecksumUnchecked = "checksum-unchecked",
    /// A follower keeps the entries that its new leader contradicts.
    TruncationIgnored = "truncation-ignored",
    /// The log is purged up to the applied entry, even if no snapshot holds it.
    PurgeBeyondSnapshot = "purge-beyond-snapshot",
    /// Commands are proposed that a member's build does not know.
    LevelUnchecked = "level-unchecked",
    /// A replica rejects a command of a newer build, which the others apply, instead of stopping.
    NewerRejected = "newer-rejected",
    /// A replica considers itself fresh without asking the leader.
    StaleRead = "stale-read",
    /// A leader answers a read without asking a majority whether it still leads.
    LeaderReadsAlone = "leader-reads-alone",
    /// A node whose disk has lost acknowledged entries continues as if it had them.
    LogLostIgnored = "log-lost-ignored",
    /// A proposal is answered before it is committed.
    AnsweredUncommitted = "answered-uncommitted",
    /// A log that starts empty again does not forget entries that a recovery may have restored.
    RecoveredNotForgotten = "recovered-not-forgotten",
}

#[cfg(debug_assertions)]
mod active {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Mutant;

    struct Point {
        name: String,
        remaining: AtomicU64,
    }

    fn armed() -> Option<&'static Point> {
        static POINT: OnceLock<Option<Point>> = OnceLock::new();
        POINT
            .get_or_init(|| {
                let setting = std::env::var("CLICKTALLY_FAIL_AT").ok()?;
                let (name, count) = setting.split_once(':').unwrap_or((&setting, "1"));
                let remaining = AtomicU64::new(count.parse().ok()?);
                Some(Point { name: name.to_owned(), remaining })
            })
            .as_ref()
    }

    pub(super) fn reach(name: &str) {
        let Some(point) = armed() else { return };
        if point.name == name && point.remaining.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    }

    struct Loss {
        name: String,
        every: u64,
        reached: AtomicU64,
    }

    fn loss() -> Option<&'static Loss> {
        static LOSS: OnceLock<Option<Loss>> = OnceLock::new();
        LOSS.get_or_init(|| {
            let setting = std::env::var("CLICKTALLY_LOSE").ok()?;
            let (name, every) = setting.split_once(':').unwrap_or((&setting, "1"));
            let every = every.parse().ok().filter(|&every| every > 0)?;
            Some(Loss { name: name.to_owned(), every, reached: AtomicU64::new(0) })
        })
        .as_ref()
    }

    pub(super) fn loses(name: &str) -> bool {
        let Some(loss) = loss() else { return false };
        loss.name == name && (loss.reached.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(loss.every)
    }

    pub(super) fn broken() -> Option<Mutant> {
        static BROKEN: OnceLock<Option<Mutant>> = OnceLock::new();
        *BROKEN.get_or_init(|| {
            let name = std::env::var("CLICKTALLY_BREAK").ok()?;
            let known = Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name);
            assert!(known.is_some(), "CLICKTALLY_BREAK={name}: there is no such mutant");
            known
        })
    }
}

/// Marks a step at which a test may kill the process.
#[inline]
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    active::reach(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// Whether this process makes the given mistake.
#[inline]
pub fn is_broken(mutant: Mutant) -> bool {
    #[cfg(debug_assertions)]
    {
        active::broken() == Some(mutant)
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = mutant;
        false
    }
}

/// Whether the caller must behave as if the network had lost the message that it just received.
#[inline]
pub fn loses(name: &str) -> bool {
    #[cfg(debug_assertions)]
    {
        active::loses(name)
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = name;
        false
    }
}
