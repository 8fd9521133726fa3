//! The announcer sends this node's heartbeat and loads to every member of the cluster. It also shows what the other
//! nodes announced.
//!
//! Each peer gets one message, however many groups there are. It travels over the connection that the groups share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clicktally_proto::identity::ids::NodeId;
use futures::future::join_all;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::group::group_core::GroupCore;
use crate::peers::heartbeats::HeartbeatTable;
use crate::peers::network::ask;
use crate::peers::transport::{PeerCall, PeerTarget};
use clicktally_state::liveness::{Heartbeat, HeartbeatView};

/// Deadline of one heartbeat. The next heartbeats overtake a slower one.
const ANNOUNCE_DEADLINE: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub struct Announcer {
    cores: Arc<[Arc<GroupCore>]>,
    table: Arc<HeartbeatTable>,
    runtime: Handle,
}

impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcer").finish_non_exhaustive()
    }
}

/// Heartbeats being sent. Dropping this value does not cancel them.
#[derive(Debug)]
pub struct Announced(Vec<JoinHandle<()>>);

impl Announced {
    /// Waits until every send has succeeded or failed.
    pub async fn delivered(self) {
        join_all(self.0).await;
    }
}

impl Announcer {
    pub(crate) fn new(cores: Arc<[Arc<GroupCore>]>, table: Arc<HeartbeatTable>, runtime: Handle) -> Announcer {
        Announcer { cores, table, runtime }
    }

    /// Records the heartbeat here and sends it to every other member of any group. Returns without waiting for the
    /// sends.
    pub fn announce(&self, heartbeat: &Heartbeat) -> Announced {
        let Some(first) = self.cores.first() else { return Announced(Vec::new()) };
        self.table.beat(heartbeat.clone(), first.clock.monotonic());
        let peers: BTreeMap<NodeId, PeerTarget> = self.cores.iter().flat_map(|core| core.peers()).collect();
        let sends = peers.into_values().map(|peer| {
            let (core, heartbeat) = (Arc::clone(first), heartbeat.clone());
            self.runtime.spawn(async move {
                let sent: Result<(), _> =
                    ask(core.transport.as_ref(), &peer, PeerCall::Heartbeat, &heartbeat, ANNOUNCE_DEADLINE).await;
                if let Err(error) = sent {
                    tracing::debug!(peer = peer.node, %error, "heartbeat not delivered");
                }
            })
        });
        Announced(sends.collect())
    }

    pub fn view(&self) -> HeartbeatView {
        self.cores.first().map(|core| self.table.view(core.clock.monotonic())).unwrap_or_default()
    }
}
