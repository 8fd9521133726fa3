//! The Network seam over simulated wires: each call is one datagram there and one back.
//!
//! Datagrams have no connection, so a sender does not learn that its target is gone. The simulation reports what a
//! connection would. If the target's process is down and the way there is open, its kernel refuses. If the target has
//! ended, or nothing reaches it any more, the pings of the production transport break the call off. Without them a
//! snapshot whose receiver lost power would wait a minute for its answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clicktally_proto::identity::ids::NodeId;
use clicktally_proto::identity::shard_key::GroupId;
use clicktally_raft_store::peers::transport::{
    PING_INTERVAL, PING_TIMEOUT, PeerCall, PeerReply, PeerTarget, PeerTransport, TransportError,
};
use clicktally_raft_store::serving::peer_service::PeerService;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::world::World;

const PORT: u16 = 7_000;
/// A first retransmission of TCP on such a network.
const SENT_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long a refusal by the target's kernel takes.
const REFUSED_AFTER: Duration = Duration::from_millis(2);

pub(super) fn address(node: NodeId) -> String {
    format!("node-{node}:{PORT}")
}

/// First byte of a datagram.
const QUESTION: u8 = 0;
const ANSWER: u8 = 1;
const REFUSAL: u8 = 2;

/// One node's end of every link.
pub(super) struct Endpoint {
    world: Arc<World>,
    node: NodeId,
    life: u64,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    answers: BTreeMap<u64, oneshot::Sender<(u8, Bytes)>>,
}

impl Endpoint {
    /// The endpoint of a life, and its inbox.
    pub(super) fn bind(world: Arc<World>, node: NodeId, life: u64) -> (Arc<Endpoint>, mpsc::Receiver<Bytes>) {
        let inbox = world.wire.lock().bind(node);
        // A number belongs to one life: an answer to a call of an earlier life must not match.
        let waiting = Waiting { next: life << 40, answers: BTreeMap::new() };
        (Arc::new(Endpoint { world, node, life, waiting: Mutex::new(waiting) }), inbox)
    }

    /// Receives as long as the node lives. Questions are answered once there is a service.
    pub(super) async fn receive(
        self: Arc<Endpoint>,
        mut inbox: mpsc::Receiver<Bytes>,
        service: tokio::sync::watch::Receiver<Option<Arc<PeerService>>>,
    ) {
        while let Some(bytes) = inbox.recv().await {
            let Some(datagram) = Datagram::read(&bytes) else { continue };
            if datagram.kind != QUESTION {
                if let Some(waiting) = self.waiting.lock().answers.remove(&datagram.number) {
                    // The caller may have given up.
                    let _ = waiting.send((datagram.kind, datagram.body));
                }
                continue;
            }
            let (endpoint, mut service) = (Arc::clone(&self), service.clone());
            tokio::spawn(async move {
                // The socket listens before there is a store to answer from, so callers wait.
                let served = service.wait_for(Option::is_some).await.map(|service| service.clone());
                let Ok(Some(service)) = served else { return };
                let Datagram { number, from, group, call, body, .. } = datagram;
                let answer = service.answer(endpoint.node, group, call, &body).await;
                let (kind, body) = match answer {
                    Ok(body) => (ANSWER, body),
                    Err(refusal) => (REFUSAL, Bytes::from(refusal.to_string())),
                };
                let answer = Datagram { kind, number, from: endpoint.node, group, call, body };
                endpoint.send(from, &answer).await;
            });
        }
    }

    /// Sends until a datagram is on its way: TCP resends what a wire loses, so a call with a long deadline sees a
    /// delay.
    async fn send(&self, to: NodeId, datagram: &Datagram) {
        let bytes = datagram.to_bytes();
        // A node that has ended sends no more, though its tasks may run until the driver removes it.
        while self.world.host(self.node, |host| host.lives == self.life && host.is_up) {
            let now = self.world.elapsed();
            if self.world.wire.lock().send(now, self.node, to, &bytes) {
                return;
            }
            tokio::time::sleep(SENT_AGAIN_AFTER).await;
        }
    }

    async fn ask(self: &Arc<Endpoint>, to: &PeerTarget, call: PeerCall, body: Bytes) -> Result<Bytes, TransportError> {
        let is_open = !self.world.wire.lock().cut.contains(&(self.node, to.node));
        if is_open && !self.world.is_up(to.node) {
            tokio::time::sleep(REFUSED_AFTER).await;
            return Err(TransportError::Unreachable(to.address.clone(), "connection refused".to_owned()));
        }
        let (sender, answer) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting.lock();
            waiting.next += 1;
            let number = waiting.next;
            waiting.answers.insert(number, sender);
            number
        };
        let _forget = Forget { endpoint: self, number };
        let question = Datagram { kind: QUESTION, number, from: self.node, group: to.group, call, body };
        let life = self.world.host(to.node, |host| host.lives);
        let lost = |reason: &str| TransportError::Lost(to.address.clone(), reason.to_owned());
        let answered = tokio::select! {
            biased;
            answered = async {
                self.send(to.node, &question).await;
                answer.await
            } => answered,
            () = self.connection_breaks(to.node, life) => return Err(lost("the connection broke")),
        };
        match answered {
            Ok((ANSWER, body)) => Ok(body),
            Ok((_, reason)) => {
                Err(TransportError::Refused(to.address.clone(), String::from_utf8_lossy(&reason).into_owned()))
            }
            Err(_) => Err(lost("the node is shutting down")),
        }
    }

    /// When the pings of a connection report that this life of a node is gone. (A frozen process would not answer them
    /// either; here calls wait for it.)
    async fn connection_breaks(&self, to: NodeId, life: u64) {
        let mut silent = Duration::ZERO;
        while silent < PING_TIMEOUT {
            tokio::time::sleep(PING_INTERVAL).await;
            let is_cut = self.world.wire.lock().is_cut_between(self.node, to);
            let is_there = self.world.host(to, |host| host.lives == life && host.is_up);
            // The kernel of the target, or that of its successor, refuses the unknown connection.
            if !is_cut && !is_there {
                return;
            }
            silent = if is_cut { silent + PING_INTERVAL } else { Duration::ZERO };
        }
    }
}

/// Removes a call from the list, however it ends.
struct Forget<'a> {
    endpoint: &'a Endpoint,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.endpoint.waiting.lock().answers.remove(&self.number);
    }
}

pub(super) struct SimTransport(pub(super) Arc<Endpoint>);

impl PeerTransport for SimTransport {
    fn call<'a>(&'a self, to: &'a PeerTarget, call: PeerCall, body: Bytes, deadline: Duration) -> PeerReply<'a> {
        Box::pin(async move {
            match tokio::time::timeout(deadline, self.0.ask(to, call, body)).await {
                Ok(answer) => answer,
                Err(_) => Err(TransportError::Lost(to.address.clone(), "deadline has elapsed".to_owned())),
            }
        })
    }
}

struct Datagram {
    kind: u8,
    number: u64,
    from: NodeId,
    group: GroupId,
    call: PeerCall,
    body: Bytes,
}

/// `kind u8 ‖ number u64 ‖ from u64 ‖ group u16 ‖ call u8`, little-endian, before the body.
const HEAD_BYTES: usize = 1 + 8 + 8 + 2 + 1;

impl Datagram {
    fn to_bytes(&self) -> Bytes {
        let call = PeerCall::ALL.iter().position(|call| *call == self.call).unwrap_or(0);
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.body.len());
        bytes.push(self.kind);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.from.to_le_bytes());
        bytes.extend_from_slice(&self.group.0.to_le_bytes());
        bytes.push(u8::try_from(call).unwrap_or(0));
        bytes.extend_from_slice(&self.body);
        bytes.into()
    }

    fn read(bytes: &Bytes) -> Option<Datagram> {
        let head = bytes.get(..HEAD_BYTES)?;
        let long = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        Some(Datagram {
            kind: head[0],
            number: long(1)?,
            from: long(9)?,
            group: GroupId(u16::from_le_bytes([head[17], head[18]])),
            call: *PeerCall::ALL.get(usize::from(head[19]))?,
            body: bytes.slice(HEAD_BYTES..),
        })
    }
}
