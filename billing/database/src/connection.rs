//! Connecting to PostgreSQL.
//!
//! Connections have three roles. The *pool* ([`Database`]) serves short queries and transactions. A *lock session* is
//! one connection for as long as a duty lasts; it carries the binary COPY of its duty too. A *listener* waits for
//! notifications.

use std::str::FromStr;
use std::time::Duration;

use clicktally_proto::next_move::NextMove;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};

use crate::error::{DatabaseError, next_move_of};

/// Connections one node may hold for billing, the window writer and the catalogue writer together.
const CONNECTIONS_MAX: u32 = 8;

/// What a pool of its own may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    pub connections_max: u32,
    /// How long a query waits for a free connection.
    pub acquire_timeout: Duration,
}

/// A pool of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
}

impl Database {
    /// Connects now, and leaves the schema as it is. Does not wait for a server that is down: the caller retries.
    ///
    /// # Errors
    /// `Unreachable` while the server is down; `Url` for a URL that is not one; `AccessRefused` for a wrong password or
    /// database.
    pub(crate) async fn connect(url: &str) -> Result<Database, DatabaseError> {
        let options = options_of(url)?;
        let address = address_of(&options);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .connect_with(options)
            .await
            .map_err(|error| refused_or_unreachable(&error, address))?;
        Ok(Database { pool })
    }

    /// Connects at the first query, and leaves the schema as it is.
    ///
    /// # Errors
    /// `Url` for a URL that is not one.
    pub fn connect_lazy(url: &str, limits: PoolLimits) -> Result<Database, DatabaseError> {
        assert!(limits.connections_max > 0, "a pool without a connection would answer nothing");
        let pool = PgPoolOptions::new()
            .max_connections(limits.connections_max)
            .acquire_timeout(limits.acquire_timeout)
            .connect_lazy_with(options_of(url)?);
        Ok(Database { pool })
    }

    /// The host and the port, for messages.
    pub(crate) fn address(&self) -> String {
        address_of(&self.pool.connect_options())
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A connection that the pool forgets: what it holds (a lock, a temporary table) ends with it, and never reaches
    /// the next user of the pool.
    pub(crate) async fn detached(&self) -> Result<PgConnection, DatabaseError> {
        Ok(self.pool.acquire().await?.detach())
    }
}

fn address_of(options: &PgConnectOptions) -> String {
    format!("{}:{}", options.get_host(), options.get_port())
}

fn options_of(url: &str) -> Result<PgConnectOptions, DatabaseError> {
    // The driver accepts any scheme.
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(DatabaseError::Url("it must begin with postgres://".to_owned()));
    }
    let options = PgConnectOptions::from_str(url).map_err(|e| DatabaseError::Url(e.to_string()))?;
    Ok(options.application_name("clicktally"))
}

/// Waiting does not correct a wrong password; anything else about a new connection may pass.
fn refused_or_unreachable(error: &sqlx::Error, address: String) -> DatabaseError {
    let detail = error.to_string();
    match next_move_of(error) {
        NextMove::Retry => DatabaseError::Unreachable { address, detail },
        NextMove::Reject | NextMove::Halt => DatabaseError::AccessRefused { address, detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_another_database_is_refused_before_anything_connects() {
        assert!(matches!(options_of("mysql://x"), Err(DatabaseError::Url(_))));
        assert!(options_of("postgresql://clicktally@localhost/clicktally").is_ok());
    }
}
