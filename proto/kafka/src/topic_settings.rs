//! The settings that a topic must have. A missing topic is made with them; a topic that exists is checked, and the
//! answer names the command that cures it.
//!
//! Nothing here is a matter of taste. With `CreateTime` a producer's clock decides what is complete, and the budget
//! lane serves on counts that it believes to be fresh. With compaction or a short retention clicks are gone before they
//! are archived. With one in-sync replica an acknowledged click dies with one broker.

use std::collections::BTreeMap;

/// What one setting must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Needed {
    Exactly(&'static str),
    /// `-1` is Kafka's word for no limit.
    AtLeast(u64),
}

impl Needed {
    /// The value for a new topic, and for the command that cures an old one.
    pub(crate) fn value(&self) -> String {
        match self {
            Needed::Exactly(value) => (*value).to_owned(),
            Needed::AtLeast(least) => least.to_string(),
        }
    }

    fn allows(&self, found: &str) -> bool {
        match self {
            Needed::Exactly(value) => found == *value,
            Needed::AtLeast(least) => found == "-1" || found.parse().is_ok_and(|found: u64| found >= *least),
        }
    }
}

/// By name, in the order in which they are reported.
pub(crate) type TopicSettings = Vec<(&'static str, Needed)>;

/// Describes each setting that is not as needed, and how to change it. Empty: all are. A setting that the broker does
/// not report is left alone: an older broker does not know it.
pub(crate) fn complaints(
    topic: &str,
    needed: &TopicSettings,
    found: &BTreeMap<String, String>,
    brokers: &str,
) -> Vec<String> {
    let wrong = needed.iter().filter_map(|(key, needed)| {
        let is = found.get(*key).filter(|is| !needed.allows(is))?;
        let value = needed.value();
        let least = if matches!(needed, Needed::AtLeast(_)) { "at least " } else { "" };
        Some(format!(
            "topic {topic} has {key}={is} and needs {least}{value}: run kafka-configs.sh --bootstrap-server {brokers} \
             --alter --entity-type topics --entity-name {topic} --add-config {key}={value}"
        ))
    });
    wrong.collect()
}

/// # Errors
/// Says what is wrong with the number of copies. `wanted`: what this node makes topics with.
pub(crate) fn check_copies(topic: &str, found: usize, wanted: i32, min_in_sync: Option<&str>) -> Result<(), String> {
    let wanted = usize::try_from(wanted).unwrap_or(0);
    if found < wanted {
        return Err(format!(
            "topic {topic} has {found} copies of each partition, and [log] replication is {wanted}: add copies with \
             kafka-reassign-partitions.sh, or lower [log] replication"
        ));
    }
    match min_in_sync.and_then(|least| least.parse::<usize>().ok()) {
        Some(least) if least > found => Err(format!(
            "topic {topic} has min.insync.replicas={least} and only {found} copies of each partition, so no write to it is \
             ever acknowledged: add copies with kafka-reassign-partitions.sh"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_wrong_is_named_with_the_command_that_cures_it() {
        let needed =
            vec![("message.timestamp.type", Needed::Exactly("LogAppendTime")), ("retention.ms", Needed::AtLeast(100))];
        for fine in [
            [("message.timestamp.type", "LogAppendTime"), ("retention.ms", "100")],
            [("message.timestamp.type", "LogAppendTime"), ("retention.ms", "-1")],
            [("message.timestamp.type", "LogAppendTime"), ("segment.ms", "5")],
        ] {
            assert!(complaints("raw", &needed, &found(&fine), "k:1").is_empty(), "{fine:?}");
        }
        let wrong = found(&[("message.timestamp.type", "CreateTime"), ("retention.ms", "99")]);
        assert_eq!(
            complaints("raw", &needed, &wrong, "k:1"),
            [
                "topic raw has message.timestamp.type=CreateTime and needs LogAppendTime: run kafka-configs.sh \
                 --bootstrap-server k:1 --alter --entity-type topics --entity-name raw --add-config \
                 message.timestamp.type=LogAppendTime",
                "topic raw has retention.ms=99 and needs at least 100: run kafka-configs.sh --bootstrap-server k:1 --alter \
                 --entity-type topics --entity-name raw --add-config retention.ms=100",
            ]
        );
    }

    #[test]
    fn a_topic_has_as_many_copies_as_the_node_asks_for_and_as_its_writes_need() {
        for (copies, wanted, min_in_sync) in [(1, 1, Some("1")), (3, 3, Some("2")), (3, 1, None), (3, -1, Some("3"))] {
            assert_eq!(check_copies("raw", copies, wanted, min_in_sync), Ok(()));
        }
        assert!(check_copies("raw", 1, 3, Some("1")).unwrap_err().contains("[log] replication is 3"));
        assert!(check_copies("raw", 1, 1, Some("2")).unwrap_err().contains("no write to it is ever acknowledged"));
    }
}
