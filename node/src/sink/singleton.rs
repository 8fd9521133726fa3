//! One worker in the whole cluster at a time, by a PostgreSQL advisory lock held by a session. Convenience, not safety: whoever
//! works twice is stopped by the guards of the tables themselves.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, PgPool};
use tokio::sync::watch;

/// Names of the locks; arbitrary, but never to change.
#[derive(Debug, Clone, Copy)]
pub enum Duty {
    WindowWriter = 7_001,
    CatalogWriter = 7_002,
}

const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The session that holds the lock; losing it loses the duty.
#[derive(Debug)]
pub struct Held {
    connection: PgConnection,
}

impl Held {
    /// False once the session is gone, and with it the lock.
    pub async fn is_held(&mut self) -> bool {
        self.connection.ping().await.is_ok()
    }
}

/// Waits for the duty; `None` when stopped meanwhile.
pub async fn obtain(pool: &PgPool, duty: Duty, stop: &mut watch::Receiver<bool>) -> Option<Held> {
    loop {
        match try_obtain(pool, duty).await {
            Ok(Some(held)) => return Some(held),
            Ok(None) => {}
            Err(error) => tracing::debug!(?duty, %error, "PostgreSQL does not answer"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => {}
            _ = stop.wait_for(|stop| *stop) => return None,
        }
    }
}

async fn try_obtain(pool: &PgPool, duty: Duty) -> Result<Option<Held>, sqlx::Error> {
    let mut connection = pool.acquire().await?.detach();
    let is_mine: bool =
        sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(duty as i64).fetch_one(&mut connection).await?;
    if is_mine {
        return Ok(Some(Held { connection }));
    }
    connection.close().await?;
    Ok(None)
}
