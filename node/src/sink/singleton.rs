//! One worker in the whole cluster at a time, by an advisory lock of PostgreSQL.

use std::time::Duration;

use clicktally_database::{AdvisoryLock, Database, LockSession};
use clicktally_proto::next_move::NextMove;
use tokio::sync::watch;

const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// The pause after an error that only an operator can cure.
const HALT_PAUSE: Duration = Duration::from_secs(10);

/// Waits for the duty that the lock stands for; `None` when stopped meanwhile.
pub async fn obtain(database: &Database, duty: AdvisoryLock, stop: &mut watch::Receiver<bool>) -> Option<LockSession> {
    loop {
        let pause = match database.try_lock(duty).await {
            Ok(Some(session)) => return Some(session),
            Ok(None) => RETRY_PAUSE,
            Err(error) if error.next_move() == NextMove::Retry => {
                tracing::debug!(?duty, %error, "PostgreSQL does not answer");
                RETRY_PAUSE
            }
            Err(error) => {
                tracing::error!(?duty, %error, "this duty is not done until an operator acts");
                HALT_PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return None,
        }
    }
}
