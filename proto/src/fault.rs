//! Planted faults, for tests of builds with debug assertions only. Release builds compile them away.
//!
//! * `CLICKTALLY_FAIL_AT=point:n` aborts the process when it reaches the named point for the n-th time, as `kill -9`
//!   would.
//! * `CLICKTALLY_BREAK=mutant` breaks one promise (see [`Mutant`]), so that a test can show that its check notices.
//! * `CLICKTALLY_LOSE=point:n` loses every n-th message received at the named point, as a network may.
//! * `CLICKTALLY_HOLD=point/n:file` holds shard n at the named point for as long as the file exists, so that a test can
//!   make a shard the slowest on any machine.

macro_rules! mutants {
    ($($layer:ident { $($name:ident = $text:literal: $mistake:literal,)+ })+) => {
        /// One promise broken on purpose, as a plausible mistake would break it.
        ///
        /// This table is the only place where a mutant is written. The simulation hunts every one of them, and `make
        /// sim-mutants` writes them into `docs/simulation.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $mistake] $name,)+)+
        }

        impl Mutant {
            pub const ALL: &'static [Mutant] = &[$($(Mutant::$name,)+)+];

            /// As `CLICKTALLY_BREAK` spells it.
            pub fn name(self) -> &'static str {
                match self {
                    $($(Mutant::$name => $text,)+)+
                }
            }

            /// The mistake in words, for people.
            pub fn mistake(self) -> &'static str {
                match self {
                    $($(Mutant::$name => $mistake,)+)+
                }
            }

            pub fn layer(self) -> Layer {
                match self {
                    $($(Mutant::$name => Layer::$layer,)+)+
                }
            }
        }
    };
}

/// Which part of the product makes a mistake, and therefore how much of it must run for the mistake to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The pure rules: counting, apply, placement, budgets, and the shells that the simulation models.
    Rules,
    /// The machinery of a whole node: Raft, disks, snapshots, upgrades.
    Nodes,
    /// The rules of what is owed: terms, bills, documents, ledger, reconciliation.
    Billing,
}

mutants! {
    Rules {
        ReplacedTermsLost = "replaced-terms-lost": "terms that are replaced before PostgreSQL has them are forgotten",
        Identity = "identity": "clicks are counted without a look at the ids already seen",
        Offset = "offset": "counts are merged without comparing the checkpoint's offsets with the committed ones",
        Sink = "sink": "rows are added up in PostgreSQL instead of replaced by revision",
        EpochUnchecked = "epoch-unchecked": "a checkpoint of a former owner is accepted",
        MergeReplaces = "merge-replaces": "a partial count replaces the stored one instead of being added to it",
        WatermarkByTimer = "watermark-by-timer": "a shard that has not read to the log's end follows the clock all the same",
        LostTailProves = "lost-tail-proves": "a log that ends before the shard's offset counts as read to its end (this happened once)",
        ProofAfterAnswer = "proof-after-answer": "a proof of emptiness carries the time of the answer, not that of the question",
        ProofByOwnClock = "proof-by-own-clock": "a proof of emptiness carries the wall clock of the shard's owner, not the log's (this happened once)",
        WatermarkGoesBack = "watermark-goes-back": "a new owner starts without its predecessor's watermark, and apply accepts any",
        DedupEvictedEarly = "dedup-evicted-early": "seen ids are forgotten when their window fires, not when it is final",
        SnapshotWithoutSeenIds = "snapshot-without-seen-ids": "snapshots leave out the seen ids",
        UpsertUnversioned = "upsert-unversioned": "rows replace each other in PostgreSQL regardless of their revision",
        SinkOffsetsFirst = "sink-offsets-first": "the sink's offsets are committed before their rows",
        ReportedUnpublished = "reported-unpublished": "windows are reported as published before they are",
        LateAfterCommit = "late-after-commit": "a checkpoint is proposed before its late clicks are durable",
        LateDropped = "late-dropped": "late clicks are counted as late and sent nowhere",
        AheadMovesWatermark = "ahead-moves-watermark": "a click dated ahead of its arrival moves the watermark beyond its arrival",
        CampaignNotInIdentity = "campaign-not-in-identity": "an event that two campaigns report is one click",
        FarAheadCounted = "far-ahead-counted": "a click dated far ahead of its arrival is counted like any other",
        MisroutedCounted = "misrouted-counted": "a click in another shard's partition is counted where it is found",
        CutUncommitted = "cut-uncommitted": "a checkpoint is proposed before its predecessor is committed",
        GapTakenForSuccess = "gap-taken-for-success": "an offset gap is taken for a success",
        EvictedUnpublished = "evicted-unpublished": "windows leave replicated state before they are published",
        MoveEpochUnchecked = "move-epoch-unchecked": "assignments do not compare the epoch they saw",
        ResetToLatest = "reset-to-latest": "a newly opened reader begins at the log's end",
        StalenessIgnored = "staleness-ignored": "a stale replica says yes about a budget",
        ClockDifferenceIgnored = "clock-difference-ignored": "a node whose clock is far off the log's says yes about a budget",
        AnswerOutlives = "answer-outlives": "a yes about a budget holds for ten times its life",
        SpendTwice = "spend-twice": "a budget is charged twice for every click",
        LeaseByWallClock = "lease-by-wall-clock": "nodes are declared dead by wall clocks",
        GarbageSkipped = "garbage-skipped": "an unreadable record leaves no trace in the outcomes",
        HolesUnread = "holes-unread": "a shard's position is behind its last record, so a marker at a partition's end is never passed",
        LogIdentityIgnored = "log-identity-ignored": "a shard goes on at its offset in a topic that was deleted and made again (this happened once)",
        AbortedCounted = "aborted-counted": "the records of an aborted transaction are counted",
    }
    Nodes {
        AckBeforeFsync = "ack-before-fsync": "an entry is acknowledged to the leader before it is on disk",
        FsyncErrorIgnored = "fsync-error-ignored": "a failed fsync is taken for one that succeeded",
        VoteNotDurable = "vote-not-durable": "a vote is given before it is on disk",
        ChecksumUnchecked = "checksum-unchecked": "a snapshot is installed without verifying its checksums",
        SnapshotMergesRuns = "snapshot-merges-runs": "snapshots merge the runs of cells that replicas must agree on",
        TruncationIgnored = "truncation-ignored": "a follower keeps the entries that its new leader contradicts",
        PurgeBeyondSnapshot = "purge-beyond-snapshot": "the log is purged up to what is applied, beyond the newest durable snapshot",
        LevelUnchecked = "level-unchecked": "commands are proposed that the build of a member does not know",
        NewerRejected = "newer-rejected": "a replica rejects a newer build's command that the others apply, instead of stopping",
        HaltUnsaid = "halt-unsaid": "a shard whose log was cut halts without reporting it",
        StaleRead = "stale-read": "a replica takes itself for fresh without asking the leader",
        LeaderReadsAlone = "leader-reads-alone": "a leader answers a read without asking a majority whether it still leads",
        AnsweredUncommitted = "answered-uncommitted": "a proposal is answered before it is committed",
        LogLostIgnored = "log-lost-ignored": "a node whose disk has lost acknowledged entries joins as if it had not",
        RecoveredNotForgotten = "recovered-not-forgotten": "a log begins again over entries that a recovery brought back",
    }
    Billing {
        TermsRevisionLost = "terms-revision-lost": "only terms in force are carried to PostgreSQL, and not those replaced meanwhile (this happened once)",
        TermsNotAwaited = "terms-not-awaited": "the batch bills before PostgreSQL has every price that was in force",
        PriceIntervalShifted = "price-interval-shifted": "a click at the instant of a change is billed at the terms before it",
        FirstTermsCoverAll = "first-terms-cover-all": "clicks that arrived before a campaign had terms are billed at its first ones",
        AheadBoundOfBatch = "ahead-bound-of-batch": "the batch has a bound of its own for clicks dated ahead (this happened once)",
        BudgetPerDay = "budget-per-day": "what other days have billed is not taken off a budget",
        RerunRefunds = "rerun-refunds": "a budget that was lowered later takes back what was billed (this happened once)",
        CurrenciesMixed = "currencies-mixed": "an advertiser gets one document for campaigns in two currencies",
        CurrenciesAdded = "currencies-added": "a reconciliation adds amounts of all currencies",
        SettledForgotten = "settled-forgotten": "a run of a final day bills the whole day again, and not the difference",
        RerunRepeats = "rerun-repeats": "a rerun of a final day with equal inputs is another revision (this happened once)",
        DraftPosted = "draft-posted": "a draft is posted to the ledger (this happened once)",
        FinalTooEarly = "final-too-early": "a day becomes final at its end, while its clicks may still come (this happened once)",
        ReconciledUnchecked = "reconciled-unchecked": "a day becomes final by the reconciliation of an earlier run",
        ReconciledEarly = "reconciled-early": "a day becomes final by a reconciliation from before its end (this happened once)",
        PageIgnored = "page-ignored": "a day becomes final although its reconciliation pages",
        AmountsUncompared = "amounts-uncompared": "a reconciliation compares clicks only, so that a price that never arrived goes unnoticed (this happened once)",
        AmountsCancel = "amounts-cancel": "what the stream charged too much in one window hides what it charged too little in another",
        FinalityOfAllGroups = "finality-of-all-groups": "a final window of one group closes the windows of all groups (this happened once)",
    }
}

#[cfg(debug_assertions)]
mod active {
    use std::path::PathBuf;
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

    struct Hold {
        point: String,
        shard: u16,
        file: PathBuf,
    }

    fn hold() -> Option<&'static Hold> {
        static HOLD: OnceLock<Option<Hold>> = OnceLock::new();
        HOLD.get_or_init(|| {
            let setting = std::env::var("CLICKTALLY_HOLD").ok()?;
            let (place, file) = setting.split_once(':')?;
            let (point, shard) = place.split_once('/')?;
            Some(Hold { point: point.to_owned(), shard: shard.parse().ok()?, file: file.into() })
        })
        .as_ref()
    }

    pub(super) fn holds(point: &str, shard: u16) -> bool {
        hold().is_some_and(|hold| hold.point == point && hold.shard == shard && hold.file.exists())
    }

    pub(super) fn broken() -> Option<Mutant> {
        static BROKEN: OnceLock<Option<Mutant>> = OnceLock::new();
        *BROKEN.get_or_init(|| {
            let name = std::env::var("CLICKTALLY_BREAK").ok()?;
            let known = Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name);
            assert!(known.is_some(), "CLICKTALLY_BREAK={name}: no such mutant");
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

/// True if this process must make the given mistake.
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

/// True if the caller must behave as if the message it has just received had been lost on the way.
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

/// True while a test holds this shard at the named point. The caller must do nothing there, and ask again later.
#[inline]
pub fn holds(point: &str, shard: u16) -> bool {
    #[cfg(debug_assertions)]
    {
        active::holds(point, shard)
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = (point, shard);
        false
    }
}
