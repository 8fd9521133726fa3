//! Planted faults, for tests of builds with debug assertions only; release builds compile them away.
//!
//! * `CLICKTALLY_FAIL_AT=point:n` aborts the process when the named point is reached for the n-th time, as `kill -9` would.
//! * `CLICKTALLY_BREAK=link` disables one promise, so that a test can show that its check notices.
//! * `CLICKTALLY_LOSE=point:n` loses what is received at the named point, every n-th time, as a network may.

/// One of the three links of exactly-once, broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Clicks are counted without looking at the ids already seen.
    Identity,
    /// Counts are merged without comparing the checkpoint's offsets with the committed ones.
    Offset,
    /// Rows are added up in PostgreSQL instead of replaced by revision.
    Sink,
}

#[cfg(debug_assertions)]
mod active {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Point {
        name: String,
        remaining: AtomicU64,
    }

    fn armed() -> Option<&'static Point> {
        static POINT: OnceLock<Option<Point>> = OnceLock::new();
        POINT
            .get_or_init(|| {
                let setting = std::env::var("CLICKTALLY_FAIL_AT").ok()?;
                let (name, count) = setting.split_once(':').unwrap_or((&setting, "1"));
                let remaining = AtomicU64::new(count.parse().ok()?);
                Some(Point { name: name.to_owned(), remaining })
            })
            .as_ref()
    }

    pub(super) fn reach(name: &str) {
        let Some(point) = armed() else { return };
        if point.name == name && point.remaining.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    }

    struct Loss {
        name: String,
        every: u64,
        reached: AtomicU64,
    }

    fn loss() -> Option<&'static Loss> {
        static LOSS: OnceLock<Option<Loss>> = OnceLock::new();
        LOSS.get_or_init(|| {
            let setting = std::env::var("CLICKTALLY_LOSE").ok()?;
            let (name, every) = setting.split_once(':').unwrap_or((&setting, "1"));
            let every = every.parse().ok().filter(|&every| every > 0)?;
            Some(Loss { name: name.to_owned(), every, reached: AtomicU64::new(0) })
        })
        .as_ref()
    }

    pub(super) fn loses(name: &str) -> bool {
        let Some(loss) = loss() else { return false };
        loss.name == name && (loss.reached.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(loss.every)
    }

    pub(super) fn broken() -> Option<&'static str> {
        static BROKEN: OnceLock<Option<String>> = OnceLock::new();
        BROKEN.get_or_init(|| std::env::var("CLICKTALLY_BREAK").ok()).as_deref()
    }
}

/// Marks a step at which a test may kill the process.
#[inline]
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    active::reach(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[inline]
pub fn is_broken(link: Link) -> bool {
    #[cfg(debug_assertions)]
    {
        let name = match link {
            Link::Identity => "identity",
            Link::Offset => "offset",
            Link::Sink => "sink",
        };
        active::broken() == Some(name)
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = link;
        false
    }
}

/// True where the caller must behave as if what it has just received had been lost on the way.
#[inline]
pub fn loses(name: &str) -> bool {
    #[cfg(debug_assertions)]
    {
        active::loses(name)
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = name;
        false
    }
}
