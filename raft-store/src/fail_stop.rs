//! What happens when the disk under the Raft log lies: the process stops at once.
//!
//! An fsync that failed once may have dropped the pages it was asked to keep, and a second one may then succeed without them
//! (the "fsyncgate" of 2018). A node that goes on after that votes twice or acknowledges what it lost. So nothing is retried.

use std::fmt::Display;
use std::sync::OnceLock;

/// `EX_SOFTWARE` of sysexits.h; supervisors restart on it, and the restart replays what the disk really holds.
pub const FAIL_STOP_EXIT_CODE: i32 = 70;

static END_NODE: OnceLock<fn(&str) -> !> = OnceLock::new();

/// Has `end_node` carry out every fail-stop from now on, told what failed: in a simulation, only one of several nodes of the process
/// ends. It must see to it that nothing the node still does has any effect, and then unwind.
///
/// # Panics
/// The second time.
pub fn on_fail_stop(end_node: fn(&str) -> !) {
    assert!(END_NODE.set(end_node).is_ok(), "set once");
}

/// Ends the process. `doing` names the operation, for whoever reads the log.
pub(crate) fn fail_stop(doing: &str, error: impl Display) -> ! {
    tracing::error!(
        doing,
        %error,
        "a replica of this node cannot go on; the process stops to protect the cluster. Where the error says what to do, do that. If \
         the disk is at fault (dmesg, free space, file system errors), repair it before you start the node again; if its data is \
         lost, remove the node from the cluster and add it back empty. If not, start it again and report this"
    );
    if let Some(end_node) = END_NODE.get() {
        end_node(doing);
    }
    std::process::exit(FAIL_STOP_EXIT_CODE)
}

/// Ends the process if the thread that holds it panics: raft-engine panics on a failed fsync rather than report it.
pub(crate) struct FailStopOnPanic(pub(crate) &'static str);

impl Drop for FailStopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            fail_stop(self.0, "panic (see above)");
        }
    }
}
