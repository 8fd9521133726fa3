//! Makes this node known: settings, registration, a Snowflake worker id.

use std::time::Duration;

use clicktally_proto::clock::Clock;
use clicktally_proto::command::{Command, GroupSettings, NodeRecord, Outcome};
use clicktally_proto::next_move::NextMove;
use clicktally_raft_store::group::{Group, ProposeError};
use thiserror::Error;
use tokio::sync::watch;

use crate::retry;

/// The pause between two attempts while there is no leader.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Error)]
pub enum JoinError {
    #[error("the cluster refused this node: {0}")]
    Refused(String),
    #[error(transparent)]
    Halted(ProposeError),
    #[error("shutting down")]
    Stopped,
}

/// Returns a number that differs between two lives of this node: wall time mixed with the process id.
pub fn new_incarnation(clock: &dyn Clock) -> u64 {
    (clock.now_ms() << 20) | u64::from(std::process::id() & 0xf_ffff)
}

/// Proposes until there is an outcome, however long there is no leader. Fences make the repeat safe.
async fn propose_until_decided(
    group: &Group,
    command: &Command,
    stop: &mut watch::Receiver<bool>,
) -> Result<Outcome, JoinError> {
    loop {
        match group.propose(command).await {
            Ok(Outcome::Rejected(reason)) => return Err(JoinError::Refused(reason.to_string())),
            Ok(outcome) => return Ok(outcome),
            Err(error) if error.next_move() == NextMove::Retry => {
                tracing::debug!(group = group.id().0, %error, "not joined yet");
                retry::pause(RETRY_PAUSE, stop).await.ok_or(JoinError::Stopped)?;
            }
            Err(error) => return Err(JoinError::Halted(error)),
        }
    }
}

/// Makes this node known in every group, and leases its worker id from group 0.
pub async fn join(
    groups: &[Group],
    settings: GroupSettings,
    record: NodeRecord,
    incarnation: u64,
    command_level: u16,
    mut stop: watch::Receiver<bool>,
) -> Result<u16, JoinError> {
    let mut worker = None;
    for group in groups {
        propose_until_decided(group, &Command::Configure(settings), &mut stop).await?;
        propose_until_decided(group, &Command::RegisterNode(record.clone()), &mut stop).await?;
        let announce = Command::AnnounceLevel { node: record.node, level: command_level };
        propose_until_decided(group, &announce, &mut stop).await?;
        if group.id().0 == 0 {
            let lease = Command::LeaseWorker { node: record.node, incarnation };
            match propose_until_decided(group, &lease, &mut stop).await? {
                Outcome::WorkerLeased { worker: leased } => worker = Some(leased),
                other => return Err(JoinError::Refused(format!("unexpected outcome {other:?}"))),
            }
        }
    }
    worker.ok_or_else(|| JoinError::Refused("there is no group 0".into()))
}
