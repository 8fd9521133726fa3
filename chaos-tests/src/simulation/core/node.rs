//! One simulated node: what a crash takes, and what survives it.

use std::collections::BTreeMap;
use std::time::Duration;

use clicktally_budget::SpendVelocity;
use clicktally_proto::fault::{Mutant, is_broken};
use clicktally_proto::identity::ids::{CampaignId, NodeId};
use clicktally_proto::identity::shard_key::ShardId;
use clicktally_proto::log_time::LogTime;
use clicktally_raft_store::peers::heartbeats::HeartbeatTable;

use super::event::{IndexFor, Life, Proposer, Publication};
use super::node_clock::NodeClock;
use super::owner::Owner;
use super::plan::LEASE;
use super::replica::{Replica, ReplicaDisk};

#[derive(Debug)]
pub(super) struct SimNode {
    pub(super) id: NodeId,
    pub(super) incarnation: u64,
    pub(super) is_alive: bool,
    /// Removed for good.
    pub(super) is_gone: bool,
    pub(super) paused_until_ms: u64,
    pub(super) clock: NodeClock,
    pub(super) disk: ReplicaDisk,
    pub(super) is_log_reachable: bool,
    pub(super) memory: Memory,
}

/// Lost in a crash.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) replica: Replica,
    pub(super) known_leader: Option<NodeId>,
    pub(super) known_term: u64,
    pub(super) heartbeats: HeartbeatTable,
    /// When each peer was last heard, in true time (milliseconds).
    pub(super) heard_at_ms: BTreeMap<NodeId, u64>,
    pub(super) owners: BTreeMap<ShardId, Owner>,
    pub(super) pending: BTreeMap<u64, Proposer>,
    pub(super) placements_in_flight: u32,
    pub(super) publication: Option<Publication>,
    pub(super) is_publishing: bool,
    pub(super) awaited: Vec<(u64, IndexFor)>,
    /// When the replica was last proven current (monotonic milliseconds), and the group's committed index at that time.
    pub(super) fresh: Option<(u64, u64)>,
    pub(super) velocities: BTreeMap<CampaignId, SpendVelocity>,
    /// The log's newest answer to the question for its time.
    pub(super) log_time: Option<LogTime>,
}

impl Memory {
    pub(super) fn new(replica: Replica) -> Memory {
        Memory {
            replica,
            known_leader: None,
            known_term: 0,
            heartbeats: HeartbeatTable::new(LEASE / 2),
            heard_at_ms: BTreeMap::new(),
            owners: BTreeMap::new(),
            pending: BTreeMap::new(),
            placements_in_flight: 0,
            publication: None,
            is_publishing: false,
            awaited: Vec::new(),
            fresh: None,
            velocities: BTreeMap::new(),
            log_time: None,
        }
    }
}

impl SimNode {
    pub(super) fn new(id: NodeId, clock: NodeClock) -> SimNode {
        let mut disk = ReplicaDisk::default();
        let (replica, _) = Replica::restore(&mut disk);
        SimNode {
            id,
            incarnation: 1,
            is_alive: true,
            is_gone: false,
            paused_until_ms: 0,
            clock,
            disk,
            is_log_reachable: true,
            memory: Memory::new(replica),
        }
    }

    pub(super) fn life(&self) -> Life {
        Life { node: self.id, incarnation: self.incarnation }
    }

    pub(super) fn is_running(&self, now_ms: u64) -> bool {
        self.is_alive && self.paused_until_ms <= now_ms
    }

    pub(super) fn believes_to_lead(&self) -> bool {
        self.memory.known_leader == Some(self.id)
    }

    pub(super) fn crash(&mut self) {
        self.is_alive = false;
        self.paused_until_ms = 0;
        // The memory must not be read while the node is down.
        let (replica, _) = Replica::restore(&mut ReplicaDisk::default());
        self.memory = Memory::new(replica);
    }

    /// Returns the number of damaged snapshots.
    pub(super) fn restart(&mut self) -> usize {
        let (replica, damaged) = Replica::restore(&mut self.disk);
        self.memory = Memory::new(replica);
        self.incarnation += 1;
        self.is_alive = true;
        damaged
    }

    /// Asks the log for its time, which is `log_ms`, if the log is within reach.
    pub(super) fn ask_log_time(&mut self, now_ms: u64, log_ms: u64) {
        if self.is_log_reachable {
            let now = self.clock.monotonic(now_ms);
            self.memory.log_time = Some(LogTime::new(log_ms, now, now));
        }
    }

    /// A time of the log that a proof may carry.
    pub(super) fn log_reached(&mut self, now_ms: u64) -> Option<u64> {
        if is_broken(Mutant::ProofByOwnClock) {
            return Some(self.clock.wall_ms(now_ms));
        }
        let now = self.clock.monotonic(now_ms);
        self.memory.log_time.and_then(|known| known.reached(now))
    }

    /// The clock that leases go by.
    pub(super) fn lease_clock(&mut self, now_ms: u64) -> Duration {
        if is_broken(Mutant::LeaseByWallClock) {
            return Duration::from_millis(self.clock.wall_ms(now_ms));
        }
        self.clock.monotonic(now_ms)
    }
}
