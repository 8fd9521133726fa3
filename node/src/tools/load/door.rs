//! The common part of both doors: a bounded queue of batches, and an end that waits for every acknowledgement.

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::plan::PlannedClick;

/// Batches that may wait for a door. Beyond this the load slows down to the rate of acknowledgements.
pub(super) const QUEUE_BATCHES_MAX: usize = 16;

pub(super) type Batch = Vec<PlannedClick>;

pub(super) struct Door {
    name: &'static str,
    batch_clicks_max: usize,
    waiting: Batch,
    queue: mpsc::Sender<Batch>,
    sender: JoinHandle<anyhow::Result<()>>,
}

impl Door {
    pub(super) fn new(
        name: &'static str,
        batch_clicks_max: usize,
        queue: mpsc::Sender<Batch>,
        sender: JoinHandle<anyhow::Result<()>>,
    ) -> Door {
        Door { name, batch_clicks_max, waiting: Batch::new(), queue, sender }
    }

    pub(super) fn push(&mut self, click: PlannedClick) {
        self.waiting.push(click);
    }

    /// Hands over full batches, and with `everything` also a partial one. Waits while the queue is full.
    pub(super) async fn flush(&mut self, everything: bool) -> anyhow::Result<()> {
        while self.waiting.len() >= self.batch_clicks_max || (everything && !self.waiting.is_empty()) {
            let rest = self.waiting.split_off(self.waiting.len().min(self.batch_clicks_max));
            let batch = std::mem::replace(&mut self.waiting, rest);
            if self.queue.send(batch).await.is_err() {
                return self.failure().await;
            }
        }
        Ok(())
    }

    /// Sends the remaining clicks and returns once everything is acknowledged.
    pub(super) async fn finish(mut self) -> anyhow::Result<()> {
        self.flush(true).await?;
        drop(self.queue);
        self.sender.await.with_context(|| format!("the {} door panicked", self.name))?
    }

    async fn failure(&mut self) -> anyhow::Result<()> {
        (&mut self.sender).await.with_context(|| format!("the {} door panicked", self.name))??;
        anyhow::bail!("the {} door closed early", self.name)
    }
}
