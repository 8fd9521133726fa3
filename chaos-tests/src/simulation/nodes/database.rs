//! PostgreSQL as the nodes' window writers see it: one set of tables, and a lock that one session holds. It may be
//! down, slow, silent about a commit, restored to an older state, or give the lock to a second session.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clicktally_node::sink::window_rows::WindowRows;
use clicktally_node::sink::window_writer::{OutProgress, OutReader, OutTopics, SinkError, WindowTables, WriterSession};
use clicktally_proto::counts::window_count::WindowCount;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::next_move::NextMove;
use tokio::sync::watch;

use super::shape::Shape;
use super::world::World;
use crate::checks::Violation;
use crate::checks::ct4_revisions_rise::RevisionsRise;
use crate::simulation::edition::Story;
use crate::simulation::random::{Seed, Stream};
use crate::simulation::recount::ad_minute;
use crate::simulation::report::SeedReport;
use crate::simulation::sim_sink::{SimSink, SinkTables, TransactionFate, WriteError, read_rows};

const BACK_UP_EVERY_MS: u64 = 6_000;
/// The time between two of its faults is drawn below this.
const FAULT_PAUSE_MS_MAX: u64 = 10_000;
const DOWN_MS: (u64, u64) = (100, 6_000);
/// A session without the lock waits this long before it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const ANSWER_MS: (u64, u64) = (1, 5);

pub(super) struct SimDatabase {
    random: Stream,
    sink: SimSink,
    revisions: RevisionsRise,
    /// Sessions are numbered. Those below this number are broken.
    sessions: u64,
    broken_below: u64,
    /// The holder of the lock: the session, and its node.
    holder: Option<(u64, NodeId)>,
    is_down: bool,
    /// This many of a thousand transactions get no answer.
    doubt_permille: u64,
    answer_ms: (u64, u64),
    next_fault_ms: u64,
    mended_at_ms: u64,
    next_backup_ms: u64,
}

impl SimDatabase {
    pub(super) fn new(random: Stream) -> SimDatabase {
        SimDatabase {
            random,
            sink: SimSink::default(),
            revisions: RevisionsRise::default(),
            sessions: 0,
            broken_below: 0,
            holder: None,
            is_down: false,
            doubt_permille: 0,
            answer_ms: ANSWER_MS,
            next_fault_ms: 0,
            mended_at_ms: 0,
            next_backup_ms: 0,
        }
    }

    pub(super) fn tables(&self) -> &SinkTables {
        self.sink.tables()
    }

    /// The sessions of a process end with it.
    pub(super) fn node_ended(&mut self, node: NodeId) {
        self.holder = self.holder.filter(|(_, holder)| *holder != node);
    }

    /// Begins a fault, or ends one.
    pub(super) fn tick(&mut self, world: &World, now_ms: u64, report: &mut SeedReport) {
        if now_ms >= self.next_backup_ms && !self.is_down {
            self.next_backup_ms = now_ms + BACK_UP_EVERY_MS;
            self.sink.back_up();
        }
        if now_ms >= self.mended_at_ms {
            self.mend();
        }
        if now_ms < self.next_fault_ms {
            return;
        }
        self.next_fault_ms = now_ms + self.random.below(FAULT_PAUSE_MS_MAX);
        let (least, most) = DOWN_MS;
        self.mended_at_ms = now_ms + self.random.between(least, most);
        let kind = match self.random.below(4) {
            0 => {
                self.is_down = true;
                self.break_sessions();
                "database down"
            }
            1 => {
                self.doubt_permille = self.random.below(700);
                self.answer_ms = (1, self.random.between(5, 2_000));
                "slow and doubtful database"
            }
            2 => {
                let age = self.random.below(4);
                if !self.sink.restore(usize::try_from(age).unwrap_or(0)) {
                    return;
                }
                self.revisions.restored(self.sink.tables().rows.values().map(ad_minute).collect());
                self.break_sessions();
                "database restored"
            }
            _ => {
                // The server has given up a session, and its client does not know.
                self.holder = None;
                "two writers"
            }
        };
        world.line(format_args!("fault: {kind}"));
        report.fault(kind);
    }

    pub(super) fn mend(&mut self) {
        (self.is_down, self.doubt_permille, self.answer_ms) = (false, 0, ANSWER_MS);
    }

    fn break_sessions(&mut self) {
        self.broken_below = self.sessions + 1;
        self.holder = None;
    }

    fn obtain(&mut self, node: NodeId) -> Option<u64> {
        if self.is_down || self.holder.is_some() {
            return None;
        }
        self.sessions += 1;
        self.holder = Some((self.sessions, node));
        Some(self.sessions)
    }

    fn is_whole(&self, session: u64) -> bool {
        !self.is_down && session >= self.broken_below
    }

    fn write(&mut self, session: u64, rows: &WindowRows) -> (Result<(), WriteError>, Option<Violation>) {
        if !self.is_whole(session) {
            return (Err(WriteError::Unavailable), None);
        }
        let fate = match self.random.permille(self.doubt_permille) {
            false => TransactionFate::Committed,
            true if self.random.permille(500) => TransactionFate::CommittedUnknown,
            true => TransactionFate::RolledBack,
        };
        let written = self.sink.write(rows, fate);
        let tables = self.sink.tables();
        let now_there = rows.windows.keys().filter_map(|key| tables.rows.get(key)).map(ad_minute);
        self.revisions.observe(now_there.collect());
        (written.map(drop), self.revisions.violations().first().cloned())
    }
}

/// The view of one life of one node.
pub(super) struct NodeTables {
    pub(super) world: Arc<World>,
    pub(super) node: NodeId,
}

#[async_trait]
impl WindowTables for NodeTables {
    async fn obtain(&self, stop: &mut watch::Receiver<bool>) -> Option<Box<dyn WriterSession>> {
        loop {
            let obtained = self.world.database.lock().obtain(self.node);
            if let Some(session) = obtained {
                self.world.line(format_args!("node {} writes windows, session {session}", self.node));
                let (world, node) = (Arc::clone(&self.world), self.node);
                return Some(Box::new(Session { world, node, session }));
            }
            tokio::select! {
                () = tokio::time::sleep(ASK_AGAIN) => {}
                _ = stop.wait_for(|stop| *stop) => return None,
            }
        }
    }
}

struct Session {
    world: Arc<World>,
    node: NodeId,
    session: u64,
}

impl Session {
    async fn wait(&self) {
        let ms = {
            let mut database = self.world.database.lock();
            let (least, most) = database.answer_ms;
            database.random.between(least, most)
        };
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut database = self.world.database.lock();
        database.holder = database.holder.filter(|(session, _)| *session != self.session);
    }
}

#[async_trait]
impl WriterSession for Session {
    async fn progress(&mut self) -> Result<OutProgress, SinkError> {
        self.wait().await;
        let database = self.world.database.lock();
        if database.is_whole(self.session) { Ok(database.tables().progress.clone()) } else { Err(unavailable()) }
    }

    async fn write(&mut self, rows: &WindowRows) -> Result<(), SinkError> {
        self.wait().await;
        let (written, violation) = self.world.database.lock().write(self.session, rows);
        self.world.line(format_args!("node {} writes {} windows: {written:?}", self.node, rows.windows.len()));
        violation.into_iter().for_each(|violation| self.world.violate(violation));
        self.wait().await;
        written.map_err(|_| unavailable())
    }

    async fn is_held(&mut self) -> bool {
        self.wait().await;
        self.world.database.lock().is_whole(self.session)
    }
}

fn unavailable() -> SinkError {
    SinkError::Tables { next_move: NextMove::Retry, source: "no answer".into() }
}

/// The outbound topics of the simulated log.
pub(super) struct NodeOutTopics(pub(super) Arc<World>);

#[async_trait]
impl OutTopics for NodeOutTopics {
    async fn read_from(&self, progress: OutProgress) -> Result<Box<dyn OutReader>, SinkError> {
        Ok(Box::new(Reader { world: Arc::clone(&self.0), positions: progress }))
    }
}

struct Reader {
    world: Arc<World>,
    positions: OutProgress,
}

#[async_trait]
impl OutReader for Reader {
    async fn next(&mut self) -> Result<WindowRows, SinkError> {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            let rows = read_rows(&self.world.log.lock(), &mut self.positions);
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
    }
}

/// The tables without a cluster, for the tests of the Sink seam's contract.
pub struct LoneTables(Arc<World>);

impl LoneTables {
    pub fn new(seed: Seed) -> LoneTables {
        LoneTables(Arc::new(World::new(seed, Shape::draw(Story::newest(seed.0)))))
    }

    /// One node's view of them.
    pub fn as_node(&self) -> Box<dyn WindowTables> {
        Box::new(NodeTables { world: Arc::clone(&self.0), node: 1 })
    }

    pub fn rows(&self) -> impl Iterator<Item = WindowCount> + use<> {
        self.0.database.lock().tables().rows.clone().into_values()
    }
}
