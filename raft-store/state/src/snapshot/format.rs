//! The formats of snapshots, and which of them a group may write.
//!
//! A snapshot travels to members that run older builds, and stays on the disk of a node that may be set back. So a
//! new format is read first and written later: only once every registered node has announced the command level whose
//! builds read it. The choice depends on the state alone, so replicas write equal bytes (CT-3).

/// A version of the layout of snapshots and of what is in their chunks.
struct Format {
    number: u16,
    /// Builds of this command level and above read the format.
    level: u16,
}

/// Oldest first. Append a format when a chunk changes its contents or the head gets a field ([`crate::head`]). Its
/// level is that of the build that introduces it, which must be above the newest released level. Add a golden file of
/// the new format; the tests in `golden.rs` fail without it.
const FORMATS: [Format; 2] = [
    // The head is one record.
    Format { number: 3, level: 1 },
    // The head has tagged fields.
    Format { number: 4, level: 3 },
];

/// The newest format that this build reads.
#[cfg(test)]
pub(super) const FORMAT: u16 = FORMATS[FORMATS.len() - 1].number;
/// The oldest format that this build reads.
pub(super) const FORMAT_MIN: u16 = FORMATS[0].number;

/// The newest format that every build of a command level reads.
pub(super) fn newest_of_level(level: u16) -> u16 {
    FORMATS.iter().rev().find(|format| format.level <= level).map_or(FORMAT_MIN, |format| format.number)
}

#[cfg(test)]
mod tests {
    use clicktally_proto::command::COMMAND_LEVEL_MIN;

    use super::*;

    #[test]
    fn formats_and_their_levels_ascend_and_the_oldest_build_reads_the_first() {
        assert_eq!(FORMATS[0].level, COMMAND_LEVEL_MIN);
        for (one, next) in FORMATS.iter().zip(&FORMATS[1..]) {
            assert!(one.number + 1 == next.number && one.level < next.level, "format {}", next.number);
        }
    }

    #[test]
    fn a_level_reads_every_format_up_to_its_own() {
        assert_eq!((newest_of_level(1), newest_of_level(2), newest_of_level(3)), (3, 3, 4));
        assert_eq!(newest_of_level(u16::MAX), FORMAT);
    }
}
