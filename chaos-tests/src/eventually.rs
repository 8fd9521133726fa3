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

/// Looks like [`eventually`], for work whose amount the machine's speed turns into any length of time. Gives up when
/// the reason has stayed the same for [`HANG_MAX`], so the reason must name how far the work is.
pub async fn eventually_by_progress<T, E: Display>(
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let mut reason = String::new();
    loop {
        let changed = eventually(what, HANG_MAX, async || match condition().await {
            Ok(value) => Ok(Ok(value)),
            Err(error) => {
                let now = error.to_string();
                if now == reason { Err(now) } else { Ok(Err(now)) }
            }
        });
        match changed.await? {
            Ok(value) => return Ok(value),
            Err(progress) => reason = progress,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
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
