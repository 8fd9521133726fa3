//! The PostgreSQL schema: connecting, and bringing it up to date.

use std::str::FromStr;

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::error::BillingError;

/// Connections one node may hold for billing, the writer and reports together.
pub const CONNECTIONS_MAX: u32 = 8;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Connects and applies what is missing of the schema. Nodes that start together wait for one another (a lock inside
/// PostgreSQL). Does not wait for an unreachable server: `DatabaseUnreachable` is the caller's to retry.
///
/// # Errors
/// `DatabaseUrl` for a URL that is none, `Migration` when the schema was written by something else or by a newer build.
pub async fn connect_and_migrate(url: &str) -> Result<PgPool, BillingError> {
    // The driver takes any scheme.
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(BillingError::DatabaseUrl("it must begin with postgres://".to_owned()));
    }
    let options = PgConnectOptions::from_str(url).map_err(|e| BillingError::DatabaseUrl(e.to_string()))?;
    let address = format!("{}:{}", options.get_host(), options.get_port());
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .connect_with(options.application_name("clicktally"))
        .await
        .map_err(|e| BillingError::DatabaseUnreachable { address: address.clone(), detail: e.to_string() })?;
    match MIGRATIONS.run(&pool).await {
        Ok(()) => Ok(pool),
        Err(MigrateError::Execute(e)) if e.as_database_error().is_none() => {
            Err(BillingError::DatabaseUnreachable { address, detail: e.to_string() })
        }
        Err(e) => Err(BillingError::Migration(e.to_string())),
    }
}
