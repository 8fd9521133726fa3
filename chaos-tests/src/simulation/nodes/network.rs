//! The Network seam over turmoil: each call one datagram there and one back. Turmoil delays each for a while of its own, so that they
//! overtake each other, and cuts links; what else happens to them is drawn here: loss, a second copy, a long delay.
//!
//! A datagram knows no connection, so nobody learns that nobody listens; where the target's process is down and the way there is open,
//! its kernel refuses, as it would refuse a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clicktally_proto::ids::NodeId;
use clicktally_proto::shard_key::GroupId;
use clicktally_raft_store::peer_service::PeerService;
use clicktally_raft_store::peer_transport::{PeerCall, PeerReply, PeerTarget, PeerTransport, TransportError};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use turmoil::net::UdpSocket;

use super::world::World;
use crate::simulation::random::Stream;

const PORT: u16 = 7_000;
/// Far above a snapshot's piece.
const DATAGRAM_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A refusal by the target's kernel.
const REFUSED_AFTER: Duration = Duration::from_millis(2);

pub(super) fn host_name(node: NodeId) -> String {
    format!("node-{node}")
}

pub(super) fn address(node: NodeId) -> String {
    format!("{}:{PORT}", host_name(node))
}

/// What may happen to a datagram beside what turmoil does to it. Of a thousand each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LinkWeather {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) delayed: u64,
    /// The longest such delay.
    pub(super) delay_ms: u64,
}

pub(super) struct Weather {
    random: Stream,
    /// By the way a datagram goes.
    pub(super) links: BTreeMap<(NodeId, NodeId), LinkWeather>,
    /// Ways on which nothing arrives.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) sent: u64,
}

impl Weather {
    pub(super) fn new(random: Stream) -> Weather {
        Weather { random, links: BTreeMap::new(), cut: BTreeSet::new(), sent: 0 }
    }

    /// When the copies of a datagram leave; none if it is lost.
    fn fate(&mut self, from: NodeId, to: NodeId) -> Vec<Duration> {
        self.sent += 1;
        if self.cut.contains(&(from, to)) {
            return Vec::new();
        }
        let link = self.links.get(&(from, to)).copied().unwrap_or_default();
        if self.random.permille(link.lost) {
            return Vec::new();
        }
        let delay = |random: &mut Stream| {
            let is_delayed = random.permille(link.delayed);
            Duration::from_millis(if is_delayed { random.between(1, link.delay_ms) } else { 0 })
        };
        let mut copies = vec![delay(&mut self.random)];
        if self.random.permille(link.doubled) {
            copies.push(delay(&mut self.random) + Duration::from_millis(1));
        }
        copies
    }
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
    socket: UdpSocket,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    answers: BTreeMap<u64, oneshot::Sender<(u8, Bytes)>>,
}

impl Endpoint {
    pub(super) async fn bind(world: Arc<World>, node: NodeId, life: u64) -> std::io::Result<Arc<Endpoint>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        // A number is of one life: an answer to a call of an earlier one must find nobody.
        let waiting = Waiting { next: life << 40, answers: BTreeMap::new() };
        Ok(Arc::new(Endpoint { world, node, life, socket, waiting: Mutex::new(waiting) }))
    }

    /// Receives for as long as the node lives; questions are answered once there is a service.
    pub(super) async fn receive(self: Arc<Endpoint>, service: tokio::sync::watch::Receiver<Option<Arc<PeerService>>>) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let Ok((length, _)) = self.socket.recv_from(&mut buffer).await else { return };
            let Some(datagram) = Datagram::read(&buffer[..length]) else { continue };
            if datagram.kind != QUESTION {
                if let Some(waiting) = self.waiting.lock().answers.remove(&datagram.number) {
                    // Whoever asked may have given up.
                    let _ = waiting.send((datagram.kind, datagram.body));
                }
                continue;
            }
            let Some(service) = service.borrow().clone() else { continue };
            let endpoint = Arc::clone(&self);
            tokio::spawn(async move {
                let Datagram { number, from, group, call, body, .. } = datagram;
                let answer = service.answer(endpoint.node, group, call, &body).await;
                let (kind, body) = match answer {
                    Ok(body) => (ANSWER, body),
                    Err(refusal) => (REFUSAL, Bytes::from(refusal.to_string())),
                };
                let answer = Datagram { kind, number, from: endpoint.node, group, call, body };
                endpoint.send(from, answer).await;
            });
        }
    }

    async fn send(self: &Arc<Endpoint>, to: NodeId, datagram: Datagram) {
        // One that has ended says nothing more, though its tasks may still run until it is buried.
        if !self.world.host(self.node, |host| host.lives == self.life && host.is_up) {
            return;
        }
        let copies = self.world.weather.lock().fate(self.node, to);
        let bytes = datagram.to_bytes();
        for delay in copies {
            if delay.is_zero() {
                // A full queue at the other end is a loss.
                let _ = self.socket.send_to(&bytes, address(to)).await;
                continue;
            }
            let (endpoint, bytes) = (Arc::clone(self), bytes.clone());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let _ = endpoint.socket.send_to(&bytes, address(to)).await;
            });
        }
    }

    async fn ask(self: &Arc<Endpoint>, to: &PeerTarget, call: PeerCall, body: Bytes) -> Result<Bytes, TransportError> {
        let is_open = !self.world.weather.lock().cut.contains(&(self.node, to.node));
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
        self.send(to.node, question).await;
        match answer.await {
            Ok((ANSWER, body)) => Ok(body),
            Ok((_, reason)) => {
                Err(TransportError::Refused(to.address.clone(), String::from_utf8_lossy(&reason).into_owned()))
            }
            Err(_) => Err(TransportError::Lost(to.address.clone(), "the node is shutting down".to_owned())),
        }
    }
}

/// Takes a call off the list, however it ends.
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

    fn read(bytes: &[u8]) -> Option<Datagram> {
        let (head, body) = bytes.split_at_checked(HEAD_BYTES)?;
        let long = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        Some(Datagram {
            kind: head[0],
            number: long(1)?,
            from: long(9)?,
            group: GroupId(u16::from_le_bytes([head[17], head[18]])),
            call: *PeerCall::ALL.get(usize::from(head[19]))?,
            body: Bytes::copy_from_slice(body),
        })
    }
}
