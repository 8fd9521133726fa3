//! Decides whether the topic in the broker is the one that replicated state was counted from. Pure.

use clicktally_proto::click_log::LogError;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::log_id::LogId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recognised {
    /// Offsets mean what they meant.
    Same,
    /// The group has no name for its log yet, and gets this one before anything is read.
    First(LogId),
    /// Reading on would count other clicks under the offsets of the former ones.
    Other(LogError),
}

/// `counted`: as in replicated state. `found`: as the log answers now; a log without ids cannot be checked.
pub fn recognise(counted: Option<LogId>, found: Option<LogId>) -> Recognised {
    match (counted, found) {
        (_, None) => Recognised::Same,
        (None, Some(found)) => Recognised::First(found),
        (Some(counted), Some(found)) if counted == found || is_broken(Mutant::LogIdentityIgnored) => Recognised::Same,
        (Some(counted), Some(found)) => Recognised::Other(LogError::OtherLog { counted, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_topic_that_was_counted_is_read_on() {
        let [one, two] = [LogId([1; 16]), LogId([2; 16])];
        assert_eq!(recognise(None, Some(one)), Recognised::First(one));
        assert_eq!(recognise(Some(one), Some(one)), Recognised::Same);
        let Recognised::Other(error) = recognise(Some(one), Some(two)) else { panic!("another topic is read on") };
        assert!(
            error.to_string().contains(&one.to_string()) && error.to_string().contains(&two.to_string()),
            "{error}"
        );
        assert_eq!(recognise(Some(one), None), Recognised::Same, "the log gives no ids");
    }
}
