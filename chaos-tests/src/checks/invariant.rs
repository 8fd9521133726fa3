//! The table of invariants: the only place where a number and its statement are written.
//!
//! A check names its invariant by variant. `ARCHITECTURE.md` repeats the statements for people, and
//! `tests/documents.rs` compares it with this table. The same test compares the numbers in the names of the files of
//! this folder.

use std::fmt;

macro_rules! invariants {
    ($($number:literal $name:ident $statement:literal)+) => {
        /// What must hold in every run, whatever fails.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Invariant {
            $(#[doc = $statement] $name = $number,)+
        }

        impl Invariant {
            /// In the order of their numbers.
            pub const ALL: &'static [Invariant] = &[$(Invariant::$name,)+];

            /// The n of CT-n. Numbers are given once and are never reused.
            pub fn number(self) -> u8 {
                match self {
                    $(Invariant::$name => $number,)+
                }
            }

            pub fn statement(self) -> &'static str {
                match self {
                    $(Invariant::$name => $statement,)+
                }
            }
        }
    };
}

invariants! {
    1 Conservation "final window counts = distinct valid on-time clicks of the log."
    2 OffsetChain "a shard's committed offset is the end of the log once it is quiet, and epochs never go back."
    3 ReplicasEqual "replicas that applied the same entries hold the same state, byte for byte."
    4 PublishedRows "a row's revision in PostgreSQL never goes back; what is published is what the replicas hold."
    5 Budget "what a campaign has spent is its counted clicks at its price; a yes about a budget neither outlives its expiry nor \
              risks more than remains and is tolerated."
    6 FailClosed "a replica that is stale says no about a budget."
    7 LedgerBalanced "ledger entries sum to zero per transaction and currency."
    8 ArchiveWhole "every click of the raw log is in the archive, exactly once by manifest."
    9 DifferencesExplained "batch and stream agree, or every differing click and amount has a named cause."
    10 ReadOnce "for each shard, read = counted + duplicate + late + invalid + quarantined + misrouted, and read is what the \
                 partition holds."
    11 AcknowledgedIsLogged "every click that was acknowledged is in the raw log."
    12 UsersAndCosts "a row's unique users are within the sketch's bound of the exact number, its costs exact."
    13 WatermarkHonest "a watermark never goes back, and moves only where clicks have passed it or a partition is proven empty; \
                        what is late is declared late."
    14 Liveness "after the faults everything heals."
    15 HeardIsNotRobbed "no shard is taken from a node that its leader has heard within a lease."
    16 OneLifeAReign "no node leads in two of its lives by one vote."
    17 AnswersHold "what was acknowledged stays done, and a read proven fresh holds everything committed before it."
    18 WholeDisksLetIn "a node whose disk has lost nothing is let in; one restored from an older copy is not, where a leader \
                        remembers more."
    19 LogReachesBack "a log reaches back to the snapshot before the newest, unless a peer's snapshot has taken the place of both."
    20 OlderBuildsGoOn "no member is stopped by a command of a newer build, unless it was set back to an older one."
    21 StateSound "every state that apply reaches keeps the rules of its parts."
    22 TermsHeld "from the first report on, terms stay in the state until PostgreSQL is reported to hold them."
    23 BilledAsOfTheClick "every accepted click is billed once, at the price in force at its time and within the budget of that time, \
                           or is given away for a named cause."
    24 BooksAgree "a document is the sum of its lines, the ledger is the sum of the final documents, and no sum mixes two currencies."
    25 FinalStays "a final document never changes; a later run adds the difference as a memo, and adds nothing over equal inputs."
    26 FinalWhenReady "a day becomes final after its end and lateness, from a run that saw all of it and was reconciled without a page, \
                       or by a recorded override."
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CT-{}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invariants_are_numbered_without_gaps() {
        let numbers: Vec<u8> = Invariant::ALL.iter().map(|invariant| invariant.number()).collect();
        assert_eq!(numbers, (1..=u8::try_from(numbers.len()).unwrap()).collect::<Vec<_>>());
        assert_eq!(Invariant::WatermarkHonest.to_string(), "CT-13");
    }
}
