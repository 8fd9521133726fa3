//! The replicated commands by name, so that a run can report which of them it committed.

use clicktally_proto::command::Command;

macro_rules! commands {
    ($($name:ident)+) => {
        /// Every command. A new one does not compile until it is listed here, and is then expected of the seeds of
        /// `make test`.
        pub const COMMANDS: &[&str] = &[$(stringify!($name),)+];

        pub fn name(command: &Command) -> &'static str {
            match command {
                $(Command::$name { .. } => stringify!($name),)+
            }
        }
    };
}

commands! {
    Configure
    RegisterNode
    RemoveNode
    AssignShard
    Checkpoint
    SetCampaign
    SinkProgress
    LeaseWorker
    PlanMove
    SetDraining
    AnnounceLevel
    TermsExported
    IdentifyLog
}
