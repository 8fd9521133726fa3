//! The threads that host actors. Each is a current-thread runtime with a `LocalSet`, without an actix `System` or
//! `Arbiter`.
//!
//! An actor stays on the thread that started it, so its state needs no lock. A busy thread delays only its own actors.
//! In a simulation there must be no threads: all actors share the `LocalSet` of the task that starts them.

use std::io;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

/// The number of starts that may wait per thread. Starting an actor is rare and short.
const STARTS_QUEUED_MAX: usize = 1_024;

type Start = Box<dyn FnOnce() + Send>;

/// Runs until dropped. Actors end with their thread.
#[derive(Debug)]
pub struct ActorThreads {
    queues: Vec<mpsc::Sender<Start>>,
    threads: Vec<JoinHandle<()>>,
}

/// The actor threads are gone because the process is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the actor threads have stopped")]
pub struct Stopped;

impl ActorThreads {
    pub fn start(name: &str, threads: usize) -> io::Result<ActorThreads> {
        assert!(threads > 0);
        let mut started = ActorThreads { queues: Vec::new(), threads: Vec::new() };
        for number in 0..threads {
            let (queue, starts) = mpsc::channel::<Start>(STARTS_QUEUED_MAX);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = std::thread::Builder::new().name(format!("{name}-{number}")).spawn(move || {
                let local = LocalSet::new();
                local.block_on(&runtime, run_starts(starts));
            })?;
            started.queues.push(queue);
            started.threads.push(thread);
        }
        Ok(started)
    }

    /// Uses no thread: actors live on the caller's `LocalSet`, and end with it.
    ///
    /// # Panics
    /// Panics outside a `LocalSet`.
    pub fn on_this_one() -> ActorThreads {
        let (queue, starts) = mpsc::channel(STARTS_QUEUED_MAX);
        tokio::task::spawn_local(run_starts(starts));
        ActorThreads { queues: vec![queue], threads: Vec::new() }
    }

    pub fn count(&self) -> usize {
        self.queues.len()
    }

    /// Runs `start` on thread `slot % count`, inside its `LocalSet`, so that it may call `Actor::start`. Returns its
    /// result.
    pub async fn run<R: Send + 'static>(
        &self,
        slot: usize,
        start: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (answer, answered) = oneshot::channel();
        let job: Start = Box::new(move || {
            // The caller may be gone. The actor that was started lives on.
            let _ = answer.send(start());
        });
        self.queues[slot % self.queues.len()].send(job).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}

async fn run_starts(mut starts: mpsc::Receiver<Start>) {
    while let Some(start) = starts.recv().await {
        start();
    }
}

impl Drop for ActorThreads {
    fn drop(&mut self) {
        self.queues.clear();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an actor thread panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use actix::prelude::*;

    use super::*;

    struct Adder(u64);
    #[derive(Message)]
    #[rtype(u64)]
    struct Add(u64);
    impl Actor for Adder {
        type Context = Context<Self>;
    }
    impl Handler<Add> for Adder {
        type Result = u64;
        fn handle(&mut self, message: Add, _: &mut Self::Context) -> u64 {
            self.0 += message.0;
            self.0
        }
    }

    #[tokio::test]
    async fn actors_start_and_answer_on_their_own_threads() {
        let threads = ActorThreads::start("test", 2).unwrap();
        let address = threads.run(1, || Adder(1).start()).await.unwrap();
        assert_eq!(address.send(Add(2)).await.unwrap(), 3);
        assert_eq!(address.send(Add(4)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn without_threads_they_start_on_the_callers_own() {
        let here = std::thread::current().id();
        let local = LocalSet::new();
        let asked = local.run_until(async {
            let threads = ActorThreads::on_this_one();
            threads.run(7, || std::thread::current().id()).await.unwrap()
        });
        assert_eq!(asked.await, here);
    }
}
