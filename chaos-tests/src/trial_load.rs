//! The load beside a trial's faults. It goes on until the trial has seen what must happen under load, so no trial
//! guesses how long that takes on the machine at hand.

use std::sync::Arc;

use anyhow::Context;
use clicktally_node::tools::load::{LoadOptions, LoadSummary, LoadWatch, run_watched};
use tokio::task::JoinHandle;

/// A load under way. Dropping it leaves it running until the runtime ends.
#[derive(Debug)]
pub struct TrialLoad {
    watch: Arc<LoadWatch>,
    task: JoinHandle<anyhow::Result<LoadSummary>>,
}

impl TrialLoad {
    pub(crate) fn start(options: LoadOptions) -> TrialLoad {
        let watch = Arc::new(LoadWatch::held_open());
        let task = tokio::spawn(run_watched(options, Arc::clone(&watch)));
        TrialLoad { watch, task }
    }

    /// Lets the load end, at the earliest after its number of clicks. Returns what it sent, once all of it is
    /// acknowledged.
    pub async fn end(self) -> anyhow::Result<LoadSummary> {
        self.watch.let_end();
        self.task.await.context("the load panicked")?
    }
}
