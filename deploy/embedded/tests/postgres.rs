//! Tests the real PostgreSQL that the product and every other test use.

#![allow(clippy::unwrap_used)] // Panicking is how a test fails, in its helpers too.

use clicktally_embedded::{Postgres, PostgresOptions};
use sqlx::{Connection, PgConnection, Row};

async fn numbers(url: &str) -> Vec<i32> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let rows = sqlx::query("SELECT n FROM kept ORDER BY n").fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn execute(url: &str, sql: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
}

#[tokio::test]
async fn rows_survive_an_orderly_stop_and_a_kill_and_the_url_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut postgres = Postgres::start(PostgresOptions::serving(dir.path())).await.unwrap();
    let url = postgres.url();
    execute(&url, "CREATE TABLE kept (n INT)").await;
    execute(&url, "INSERT INTO kept VALUES (1)").await;

    postgres.stop().await.unwrap();
    assert!(PgConnection::connect(&url).await.is_err());
    postgres.restart().await.unwrap();
    assert_eq!(postgres.url(), url);
    execute(&url, "INSERT INTO kept VALUES (2)").await;

    postgres.kill().await;
    drop(postgres);
    let postgres = Postgres::start(PostgresOptions::serving(dir.path())).await.unwrap();
    assert_eq!(postgres.url(), url);
    assert_eq!(numbers(&url).await, [1, 2]);
}

#[tokio::test]
async fn a_paused_server_answers_nothing_until_it_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(PostgresOptions::for_tests(dir.path())).await.unwrap();
    let url = postgres.url();
    execute(&url, "CREATE TABLE kept (n INT)").await;
    postgres.pause();
    let waiting = tokio::spawn(async move { numbers(&url).await });
    // A paused server cannot answer. Only this assertion needs time to pass; on a slow machine it passes too easily and
    // never fails wrongly.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    postgres.resume();
    assert_eq!(waiting.await.unwrap(), Vec::<i32>::new());
}

#[tokio::test]
async fn the_server_insists_on_its_password() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(PostgresOptions::for_tests(dir.path())).await.unwrap();
    let url = format!("postgres://clicktally:wrong@127.0.0.1:{}/clicktally", postgres.port());
    let error = PgConnection::connect(&url).await.unwrap_err();
    assert!(error.to_string().contains("password authentication failed"), "{error}");
}
