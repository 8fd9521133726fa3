//! The links between the nodes of a test. A link may change one bit of a call.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clicktally_raft_store::peers::transport::{HttpTransport, PeerCall, PeerReply, PeerTarget, PeerTransport};

#[derive(Default)]
pub struct Links {
    damages: Mutex<Option<PeerCall>>,
    damaged: AtomicU64,
}

impl Links {
    /// Makes the next call of this kind arrive with one bit changed.
    pub fn damage_next(&self, call: PeerCall) {
        *self.damages.lock().unwrap() = Some(call);
    }

    /// The number of calls damaged so far.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::SeqCst)
    }

    fn carry(&self, call: PeerCall, body: Bytes) -> Bytes {
        if self.damages.lock().unwrap().take_if(|damaged| *damaged == call).is_none() {
            return body;
        }
        self.damaged.fetch_add(1, Ordering::SeqCst);
        let mut body = body.to_vec();
        let middle = body.len() / 2;
        body[middle] ^= 1;
        Bytes::from(body)
    }
}

pub struct DamagingTransport {
    pub http: HttpTransport,
    pub links: std::sync::Arc<Links>,
}

impl PeerTransport for DamagingTransport {
    fn call<'a>(&'a self, to: &'a PeerTarget, call: PeerCall, body: Bytes, deadline: Duration) -> PeerReply<'a> {
        self.http.call(to, call, self.links.carry(call, body), deadline)
    }
}
