//! The second copy of a group's promises, on the simulated disk.

use std::io;

use clicktally_proto::identity::shard_key::GroupId;
use clicktally_raft_store::storage::PromiseStorage;

use super::SimDisk;
use crate::simulation::random::Stream;

#[derive(Debug, Clone, Default)]
pub(super) struct PromiseImage {
    synced: Vec<u8>,
    /// What a reader sees, and what survives the end of the process.
    written: Vec<u8>,
}

impl PromiseImage {
    /// The system may or may not have written it back by itself.
    pub(super) fn lose_power(&mut self, random: &mut Stream) {
        if random.below(2) == 0 {
            self.written = self.synced.clone();
        }
        self.synced = self.written.clone();
    }
}

pub(super) struct SimPromises {
    pub(super) disk: SimDisk,
    pub(super) life: u64,
    pub(super) group: GroupId,
}

impl PromiseStorage for SimPromises {
    fn load(&self) -> io::Result<Vec<u8>> {
        let load =
            self.disk.with(self.life, |held| held.promises.get(&self.group).cloned().unwrap_or_default().written);
        load.map_err(io::Error::other)
    }

    fn store(&self, frame: &[u8], durable: bool) -> io::Result<()> {
        let store = self.disk.with(self.life, |held| {
            let is_broken = held.is_broken;
            let image = held.promises.entry(self.group).or_default();
            image.written = frame.to_vec();
            if durable && !is_broken {
                image.synced = image.written.clone();
            }
        });
        store.map_err(io::Error::other)
    }
}
