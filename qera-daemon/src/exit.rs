//! Exit codes. This is the only place that knows the numbers.

use std::process::ExitCode;

/// How a run ended, as the shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Done,
    /// The run stopped; the message says why.
    Failure,
    /// The command line or the configuration file is wrong.
    Usage,
    /// A generation was published, but some input was quarantined, or a layer could not be solved.
    Quarantined,
    /// The output folder or the state belongs to other settings and was refused.
    StateRefused,
    /// The plan does not fit the memory budget; nothing was started.
    OverBudget,
    /// Another process works in the output folder.
    Locked,
}

/// Status of a process that a second SIGINT ended.
pub(crate) const SECOND_SIGINT: i32 = 130;
/// Status of a process that a second SIGTERM ended.
pub(crate) const SECOND_SIGTERM: i32 = 143;

impl Exit {
    /// The number given to the operating system.
    #[must_use]
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Quarantined => 3,
            Self::StateRefused => 4,
            Self::OverBudget => 5,
            Self::Locked => 75,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
