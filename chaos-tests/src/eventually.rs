//! Waiting for a condition, bounded. A test never sleeps to let something happen; it names what it waits for.

use std::fmt::Display;
use std::time::Duration;

use anyhow::bail;

/// How long a trial waits for anything that must happen. It bounds a hang and is never a verdict on speed: a machine
/// that compiles beside the trial takes many times what an idle one does.
pub const HANG_MAX: Duration = Duration::from_secs(300);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks until `condition` gives a value. `Err` from it means "not yet, because"; the last such reason is in the
/// error when `deadline` has passed.
pub async fn eventually<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let mut reason = None;
    let looking = async {
        loop {
            match condition().await {
                Ok(value) => return value,
                Err(error) => reason = Some(error.to_string()),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    if let Ok(value) = tokio::time::timeout(deadline, looking).await {
        return Ok(value);
    }
    bail!("waited {deadline:?} in vain until {what}; the last look said: {}", reason.as_deref().unwrap_or("nothing"))
}
