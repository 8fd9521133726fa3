//! A session that waits for a lock holds up nothing else, and one that has lost its lock knows it.

use std::pin::pin;

use clicktally_database::billing::Finalisation;
use clicktally_database::{AdvisoryLock, Database, Day};
use clicktally_proto::next_move::NextMove;

use crate::clicks::HANG_MAX;
use crate::environment::{Environment, World, duty};

/// Sessions of this database that wait for an advisory lock inside PostgreSQL.
async fn sessions_in_line(world: &World) -> i64 {
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query_scalar(waiting).fetch_one(&world.pool).await.unwrap()
}

/// Waits until so many sessions of this database have asked for a lock. Those that hold one have, too.
async fn until_a_lock_was_tried(world: &World, sessions: i64) {
    let tries = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND (query LIKE '%try_advisory%' OR query LIKE '%pg_advisory%')";
    let tried = async { while sqlx::query_scalar::<_, i64>(tries).fetch_one(&world.pool).await.unwrap() < sessions {} };
    tokio::time::timeout(HANG_MAX, tried).await.expect("a session tries the lock");
}

pub(crate) async fn a_standby_keeps_no_snapshot_so_an_index_can_be_built(environment: &Environment) {
    let world = environment.world().await;
    let held = Finalisation::begin(&world.database, Day::of(0).unwrap()).await.unwrap();
    let archiver = world.database.try_lock(AdvisoryLock::Archiver).await.unwrap().expect("the duty is free");
    let mut second = pin!(Finalisation::begin(&world.database, Day::of(0).unwrap()));
    tokio::select! {
        _ = &mut second => panic!("two finalisations at once"),
        () = until_a_lock_was_tried(&world, 3) => {}
    }
    assert!(world.database.try_lock(AdvisoryLock::Archiver).await.unwrap().is_none());
    assert_eq!(sessions_in_line(&world).await, 0);
    let index = "CREATE INDEX CONCURRENTLY beside_a_standby ON billing.archive_manifest (rows)";
    tokio::select! {
        _ = &mut second => panic!("two finalisations at once"),
        built = tokio::time::timeout(HANG_MAX, sqlx::query(index).execute(&world.pool)) => {
            built.expect("the index waits for a session that waits for a lock").unwrap();
        }
    }
    drop(held);
    drop(tokio::time::timeout(HANG_MAX, second).await.expect("the lock is free").unwrap());
    drop(archiver);
}

pub(crate) async fn a_node_that_waits_for_migrations_keeps_no_snapshot(environment: &Environment) {
    let world = environment.world().await;
    let migrating = world.database.try_lock(AdvisoryLock::Migrations).await.unwrap().expect("no node starts");
    let mut second = pin!(Database::connect_and_migrate(&world.database_url));
    let index = "CREATE INDEX CONCURRENTLY beside_a_migration ON billing.archive_manifest (rows)";
    let built = async {
        until_a_lock_was_tried(&world, 2).await;
        assert_eq!(sessions_in_line(&world).await, 0);
        sqlx::query(index).execute(&world.pool).await.unwrap();
    };
    tokio::select! {
        _ = &mut second => panic!("two nodes migrate at once"),
        built = tokio::time::timeout(HANG_MAX, built) => built.expect("the index waits for a node that starts"),
    }
    drop(migrating);
    tokio::time::timeout(HANG_MAX, second).await.expect("the lock is free").unwrap();
}

pub(crate) async fn an_idle_archiver_whose_session_ends_loses_its_duty(environment: &Environment) {
    let world = environment.world().await;
    let mut archiver = world.archiver(100).await;
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(async move { archiver.run(stopped).await });
    let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(sqlx::query_scalar::<_, i64>(ended).fetch_one(&world.pool).await.unwrap(), 1);
    // Another node has the duty.
    let other = duty(&world.database).await;
    let outcome = tokio::time::timeout(HANG_MAX, running).await.expect("the archiver notices").unwrap();
    assert_eq!(outcome.unwrap_err().next_move(), NextMove::Retry);
    drop(other);
}
