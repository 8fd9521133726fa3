//! One worker in the whole cluster at a time, by an advisory lock of PostgreSQL.

use std::time::Duration;

use clicktally_database::{AdvisoryLock, Database, LockSession};
use clicktally_proto::next_move::NextMove;
use tokio::sync::watch;

use crate::halts::{Halts, Part};
use crate::retry::{self, Backoff};

const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Waits for the duty that the lock stands for; `None` when stopped meanwhile.
pub async fn obtain(
    database: &Database,
    duty: AdvisoryLock,
    part: Part,
    halts: &Halts,
    stop: &mut watch::Receiver<bool>,
) -> Option<LockSession> {
    let mut backoff = Backoff::steady(RETRY_PAUSE);
    loop {
        let pause = match database.try_lock(duty).await {
            Ok(Some(session)) => return Some(session),
            Ok(None) => {
                // Another node has the duty.
                halts.works(part);
                RETRY_PAUSE
            }
            Err(error) => {
                if error.next_move() == NextMove::Retry {
                    tracing::debug!(?duty, %error, "PostgreSQL does not answer");
                } else {
                    halts.halted(part, &error);
                }
                backoff.after(error.next_move())
            }
        };
        retry::pause(pause, stop).await?;
    }
}
