//! Waiting for a condition, bounded. A test never sleeps to let something happen; it names what it waits for.

use std::fmt::Display;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep, timeout_at};

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
    condition: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    look(what, deadline, false, condition).await
}

/// Looks like [`eventually`], for work whose amount the machine's speed turns into any length of time. Gives up when
/// the reason has stayed the same for [`HANG_MAX`], so the reason must name how far the work is.
pub async fn eventually_by_progress<T, E: Display>(
    what: &str,
    condition: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    look(what, HANG_MAX, true, condition).await
}

/// `is_extended`: the deadline counts from the last look whose reason differed from the one before.
async fn look<T, E: Display>(
    what: &str,
    deadline: Duration,
    is_extended: bool,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let mut reason: Option<String> = None;
    let mut end = Instant::now() + deadline;
    loop {
        match timeout_at(end, condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => {
                let now = Some(error.to_string());
                if is_extended && now != reason {
                    end = Instant::now() + deadline;
                }
                reason = now;
            }
            Err(_) => break,
        }
        if timeout_at(end, sleep(LOOK_EVERY)).await.is_err() {
            break;
        }
    }
    bail!("waited {deadline:?} in vain until {what}; the last look said: {}", reason.as_deref().unwrap_or("nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_by_progress_goes_on_while_there_is_some_and_ends_when_there_is_none() {
        let looks_per_step = HANG_MAX.as_millis() / LOOK_EVERY.as_millis() / 2;
        let mut looks = 0;
        let mut at_step = async |end: u128| {
            looks += 1;
            let step = looks / looks_per_step;
            if step >= end { Ok(step) } else { Err(format!("step {}", step.min(8))) }
        };
        let all = eventually_by_progress("all five steps are done", async || at_step(5).await).await;
        assert_eq!(all.unwrap(), 5, "five half deadlines, each with progress");
        let none = eventually_by_progress("it never ends", async || at_step(u128::MAX).await).await.unwrap_err();
        assert!(none.to_string().contains("step 8"), "{none}");
    }
}
