//! The Network seam: how one node calls another. Production uses HTTP/2 without TLS, with one connection per peer
//! that all groups share. A simulation provides its own network.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GroupId;
use reqwest::StatusCode;
use thiserror::Error;

/// Limit of the time that a connection may take to open. A live peer answers within a millisecond.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// A connection that answers no ping is closed, so that calls to a vanished peer do not wait until their deadlines.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);
pub const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes in flight per stream and per connection before the sender waits.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// The calls between nodes. Their names are part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerCall {
    Append,
    Vote,
    PreVote,
    Snapshot,
    TransferLeader,
    /// Any request that only the leader can carry out: propose, read index, change members.
    Lead,
    KnownOf,
    /// Fetches a piece of the newest snapshot, for a member that lost its own.
    FetchSnapshot,
    /// Announces that a node is alive. It concerns the node, not the group in the path.
    Heartbeat,
}

impl PeerCall {
    pub const ALL: [PeerCall; 9] = [
        PeerCall::Append,
        PeerCall::Vote,
        PeerCall::PreVote,
        PeerCall::Snapshot,
        PeerCall::TransferLeader,
        PeerCall::Lead,
        PeerCall::KnownOf,
        PeerCall::FetchSnapshot,
        PeerCall::Heartbeat,
    ];

    pub fn name(self) -> &'static str {
        match self {
            PeerCall::Append => "append",
            PeerCall::Vote => "vote",
            PeerCall::PreVote => "pre-vote",
            PeerCall::Snapshot => "snapshot",
            PeerCall::TransferLeader => "transfer-leader",
            PeerCall::Lead => "lead",
            PeerCall::KnownOf => "known-of",
            PeerCall::FetchSnapshot => "fetch-snapshot",
            PeerCall::Heartbeat => "heartbeat",
        }
    }

    pub fn from_name(name: &str) -> Option<PeerCall> {
        PeerCall::ALL.into_iter().find(|call| call.name() == name)
    }
}

/// The receiver of a call. A node refuses a call that is not for it, because its address may have belonged to another
/// node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTarget {
    pub node: NodeId,
    /// The `host:port` of the node's peer interface.
    pub address: String,
    pub group: GroupId,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TransportError {
    /// No node answers at the address. Wait before the next try.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    /// The call may or may not have been carried out.
    #[error("no answer from {0} in time: {1}")]
    Lost(String, String),
    /// The peer did not carry it out.
    #[error("{0} refused the call: {1}")]
    Refused(String, String),
}

pub type PeerReply<'a> = Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send + 'a>>;

/// Sends a frame and returns the answering frame. Every call ends by its deadline.
pub trait PeerTransport: Send + Sync + 'static {
    fn call<'a>(&'a self, to: &'a PeerTarget, call: PeerCall, body: Bytes, deadline: Duration) -> PeerReply<'a>;
}

/// Calls peers with `POST http://peer/raft/{cluster}/{node}/{group}/{call}`.
pub struct HttpTransport {
    cluster: String,
    client: reqwest::Client,
}

impl HttpTransport {
    /// Every path contains `cluster`, so that two clusters that reach each other by mistake do not mix.
    pub fn new(cluster: &str) -> Result<HttpTransport, TransportError> {
        #[allow(clippy::disallowed_methods)] // The one client behind the Network seam.
        let client = reqwest::Client::builder()
            .http2_prior_knowledge()
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .build()
            .map_err(|e| TransportError::Refused("the HTTP client".to_owned(), e.to_string()))?;
        Ok(HttpTransport { cluster: cluster.to_owned(), client })
    }
}

impl PeerTransport for HttpTransport {
    fn call<'a>(&'a self, to: &'a PeerTarget, call: PeerCall, body: Bytes, deadline: Duration) -> PeerReply<'a> {
        let PeerTarget { node, address, group } = to;
        let url = format!("http://{address}/raft/{}/{node}/{}/{}", self.cluster, group.0, call.name());
        let request = self.client.post(url).timeout(deadline).body(body);
        Box::pin(async move {
            let failed = |error: reqwest::Error| {
                let reason = root_cause(&error);
                if error.is_connect() {
                    TransportError::Unreachable(address.clone(), reason)
                } else {
                    TransportError::Lost(address.clone(), reason)
                }
            };
            let response = request.send().await.map_err(failed)?;
            let status = response.status();
            let body = response.bytes().await.map_err(failed)?;
            if status == StatusCode::OK {
                return Ok(body);
            }
            let reason = format!("{status} {}", String::from_utf8_lossy(&body));
            Err(TransportError::Refused(address.clone(), reason))
        })
    }
}

/// The root cause of a reqwest error. reqwest's own message names only the URL; the operator needs the end of the
/// chain.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
