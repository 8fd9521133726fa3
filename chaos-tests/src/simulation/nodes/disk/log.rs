//! The log of a simulated disk: writes queue up, and share the next fsync.

use clicktally_proto::identity::shard_key::GroupId;
use clicktally_raft_store::storage::{Completion, LogStorage, LogWrite, StorageError};
use futures::future::BoxFuture;

use super::{Queued, SimDisk};

pub(super) struct SimLogStorage {
    pub(super) disk: SimDisk,
    pub(super) life: u64,
}

impl LogStorage for SimLogStorage {
    fn submit(
        &self,
        write: LogWrite,
        durable: bool,
        completion: Option<Completion>,
    ) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async move {
            let begins = self.disk.with(self.life, |held| {
                held.queue.push(Queued { write, durable, completion });
                !std::mem::replace(&mut held.is_flushing, true)
            })?;
            if begins {
                tokio::spawn(self.disk.clone().flush_all(self.life));
            }
            Ok(())
        })
    }

    fn value(&self, group: GroupId, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        self.disk.with(self.life, |held| held.written.value(group, key))
    }

    fn first_index(&self, group: GroupId) -> Result<Option<u64>, StorageError> {
        self.disk.with(self.life, |held| held.written.first_index(group))
    }

    fn last_index(&self, group: GroupId) -> Result<Option<u64>, StorageError> {
        self.disk.with(self.life, |held| held.written.last_index(group))
    }

    fn read(&self, group: GroupId, from: u64, to: u64, bytes_max: Option<usize>) -> Result<Vec<Vec<u8>>, StorageError> {
        self.disk.with(self.life, |held| held.written.read(group, from, to, bytes_max))?
    }

    fn used_bytes(&self) -> u64 {
        self.disk.with(self.life, |held| held.written.bytes()).unwrap_or(0)
    }

    fn purge_files(&self) -> Result<Vec<GroupId>, StorageError> {
        self.disk.with(self.life, |_| Vec::new())
    }

    fn close(&self) {
        let Ok(completions) = self.disk.with(self.life, |held| {
            let completions = held.flush();
            // The next opening finds it.
            held.life += 1;
            completions
        }) else {
            return;
        };
        for (completion, stands) in completions {
            completion(if stands { Ok(()) } else { Err(StorageError::Write("an fsync has failed".into())) });
        }
    }
}
