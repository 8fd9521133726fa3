//! What stands still on this node until an operator acts, and why. Whatever halts says so here, once: the log, the
//! metric `clicktally_halted`, `/readyz` and `/v1/cluster` follow from it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};

use clicktally_api::ports::{HaltedPart, HaltedParts};
use clicktally_api::text_forms::time_text::format_time;
use clicktally_proto::clock::Clock;
use clicktally_proto::event_time::UnixMillis;
use clicktally_proto::identity::shard_key::{GroupId, ShardId};
use clicktally_raft_store::metrics_registry::{FIXED, registered};
use futures::FutureExt;
use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Opts};

static HALTED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let options = Opts::new(
        "clicktally_halted",
        "1 for each part of this node that stands still until an operator acts; /readyz says why",
    );
    registered(IntGaugeVec::new(options, &["part", "number"]).expect(FIXED))
});

/// A part of a node that can stand still while the others go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Shard(ShardId),
    /// Hands shards of a group to this node's counting threads.
    ShardWatch(GroupId),
    WindowPublisher(GroupId),
    Placement,
    Presence,
    Leadership,
    PostgreSql,
    WindowWriter,
    CatalogueWriter,
    Archive,
    Reconciliation,
    LogTopics,
    LogClock,
    HttpInterface,
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Part::Shard(_) => "shard",
            Part::ShardWatch(_) => "shard watch",
            Part::WindowPublisher(_) => "window publisher",
            Part::Placement => "placement",
            Part::Presence => "presence",
            Part::Leadership => "leadership keeper",
            Part::PostgreSql => "postgresql",
            Part::WindowWriter => "window writer",
            Part::CatalogueWriter => "catalogue writer",
            Part::Archive => "archive",
            Part::Reconciliation => "reconciliation metrics",
            Part::LogTopics => "log topics",
            Part::LogClock => "log clock",
            Part::HttpInterface => "http interface",
        }
    }

    pub fn number(self) -> Option<u64> {
        match self {
            Part::Shard(shard) => Some(shard.0.into()),
            Part::ShardWatch(group) | Part::WindowPublisher(group) => Some(group.0.into()),
            _ => None,
        }
    }

    fn consequence(self) -> &'static str {
        match self {
            Part::Shard(_) => "its clicks wait in the log, uncounted, and every budget of its group fails closed",
            Part::ShardWatch(_) => "shards that move to this node are not counted",
            Part::WindowPublisher(_) => "no window of the group reaches the topic or PostgreSQL while this node leads",
            Part::Placement => "no shard moves while this node leads the group",
            Part::Presence => "the other nodes take this node for dead",
            Part::Leadership => "leadership does not move to the node where it belongs",
            Part::PostgreSql => "reports, invoices and the archive are delayed",
            Part::WindowWriter => "reports do not get newer",
            Part::CatalogueWriter => "new campaign terms are not billable",
            Part::Archive => "invoices wait, and the log loses old clicks when its retention ends",
            Part::Reconciliation => "/metrics shows old reconciliations",
            Part::LogTopics => "clicks may be lost, or counts may seem fresher than they are",
            Part::LogClock => "this node pauses every campaign, because it cannot tell how fresh the counts are",
            Part::HttpInterface => "this node answers nothing",
        }
    }
}

struct Halt {
    reason: String,
    since_ms: UnixMillis,
}

/// The halted parts of one node.
pub struct Halts {
    clock: Arc<dyn Clock>,
    parts: Mutex<BTreeMap<Part, Halt>>,
}

impl Halts {
    pub fn new(clock: Arc<dyn Clock>) -> Halts {
        Halts { clock, parts: Mutex::default() }
    }

    /// Notes that `part` does not go on before an operator acts. A part that looks again from time to time may note the
    /// same again.
    pub fn halted(&self, part: Part, reason: &dyn Display) {
        let (name, number, consequence) = (part.name(), part.number(), part.consequence());
        tracing::error!(part = name, number, %reason, consequence, "halted until an operator acts");
        let mut parts = self.parts.lock();
        match parts.get_mut(&part) {
            Some(halt) => halt.reason = reason.to_string(),
            None => {
                parts.insert(part, Halt { reason: reason.to_string(), since_ms: self.clock.now_ms() });
                gauge(part).inc();
            }
        }
    }

    /// Notes that `part` works, again or still.
    pub fn works(&self, part: Part) {
        if self.parts.lock().remove(&part).is_some() {
            gauge(part).dec();
            tracing::info!(part = part.name(), number = part.number(), "no longer halted");
        }
    }

    /// Runs a task for as long as it lives. A panic would otherwise end it in silence.
    pub async fn supervise<T>(&self, part: Part, task: impl Future<Output = T>) -> T {
        match AssertUnwindSafe(task).catch_unwind().await {
            Ok(done) => done,
            Err(panic) => {
                self.halted(part, &"its task panicked (see the log); restart this node and report the panic");
                std::panic::resume_unwind(panic)
            }
        }
    }
}

fn gauge(part: Part) -> prometheus::IntGauge {
    let number = part.number().map_or_else(String::new, |number| number.to_string());
    HALTED.with_label_values(&[part.name(), number.as_str()])
}

impl HaltedParts for Halts {
    fn halted(&self) -> Vec<HaltedPart> {
        let parts = self.parts.lock();
        let show = |(part, halt): (&Part, &Halt)| HaltedPart {
            part: part.name().to_owned(),
            number: part.number(),
            consequence: part.consequence().to_owned(),
            reason: halt.reason.clone(),
            since: format_time(halt.since_ms),
        };
        parts.iter().map(show).collect()
    }
}

#[cfg(test)]
mod tests {
    use clicktally_proto::clock::SystemClock;

    use super::*;

    fn shown(halts: &Halts) -> Vec<(String, Option<u64>, String)> {
        HaltedParts::halted(halts).into_iter().map(|part| (part.part, part.number, part.reason)).collect()
    }

    #[test]
    fn a_part_is_shown_with_its_newest_reason_until_it_works() {
        let halts = Halts::new(Arc::new(SystemClock));
        let (shard, archive) = (Part::Shard(ShardId(9_003)), Part::Archive);
        halts.works(archive);
        halts.halted(shard, &"offset 7 is lost");
        halts.halted(shard, &"offset 8 is lost");
        halts.halted(archive, &"no bucket");
        let lost = ("shard".to_owned(), Some(9_003), "offset 8 is lost".to_owned());
        assert_eq!(shown(&halts), [lost.clone(), ("archive".to_owned(), None, "no bucket".to_owned())]);
        assert_eq!(gauge(shard).get(), 1, "twice noted, halted once");
        halts.works(archive);
        assert_eq!(shown(&halts), [lost]);
        halts.works(shard);
        assert_eq!((shown(&halts), gauge(shard).get()), (vec![], 0));
    }

    #[tokio::test]
    async fn a_task_that_panics_halts_its_part_and_one_that_ends_does_not() {
        let halts = Arc::new(Halts::new(Arc::new(SystemClock)));
        assert_eq!(halts.supervise(Part::Presence, async { 7 }).await, 7);
        assert_eq!(shown(&halts), []);
        let held = Arc::clone(&halts);
        let ended = tokio::spawn(async move { held.supervise(Part::Presence, async { panic!("a mistake") }).await });
        assert!(ended.await.unwrap_err().is_panic());
        assert_eq!(shown(&halts)[0].0, "presence");
    }
}
