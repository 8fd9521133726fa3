//! A failed fsync may have dropped the pages it was asked to keep. A second fsync may then succeed without them (the
//! "fsyncgate" of 2018). A node that continues after that may vote twice, or acknowledge entries that it lost. So
//! this crate retries no failed log operation.

use std::fmt::Display;
use std::sync::OnceLock;

/// `EX_SOFTWARE` of sysexits.h. Supervisors restart on it, and the restart replays what the disk really holds.
pub const FAIL_STOP_EXIT_CODE: i32 = 70;

static END_NODE: OnceLock<fn(&str) -> !> = OnceLock::new();

/// Makes `end_node` carry out every later fail-stop; its argument names the operation that failed. A simulation needs
/// this, because only one of the several nodes in its process may end. `end_node` must first make sure that further
/// work of the node has no effect, and then unwind.
///
/// # Panics
/// Panics if it is called a second time.
pub fn on_fail_stop(end_node: fn(&str) -> !) {
    assert!(END_NODE.set(end_node).is_ok(), "on_fail_stop may be called only once");
}

/// Ends the process. `doing` names the failed operation in the log message.
pub(crate) fn fail_stop(doing: &str, error: impl Display) -> ! {
    tracing::error!(
        doing,
        %error,
        "a replica of this node cannot continue; the process stops to protect the cluster. If the error says what to do, do that. \
         Otherwise check the disk (dmesg, free space, file system errors). If the disk is at fault, repair it before you start \
         the node again; if its data is lost, remove the node from the cluster and add it back empty. If the disk is healthy, \
         start the node again and report this error"
    );
    if let Some(end_node) = END_NODE.get() {
        end_node(doing);
    }
    std::process::exit(FAIL_STOP_EXIT_CODE)
}

/// Ends the process if what holds this guard panics, be it a thread, a task or an actor. The argument says what was
/// being done. raft-engine panics on a failed fsync instead of reporting it. A task that panics would otherwise end
/// without a trace in what the node does.
#[derive(Debug)]
pub struct FailStopOnPanic(pub &'static str);

impl Drop for FailStopOnPanic {
    fn drop(&mut self) {
        // A simulation sees every panic by itself.
        if std::thread::panicking() && END_NODE.get().is_none() {
            fail_stop(self.0, "panic (see above)");
        }
    }
}
