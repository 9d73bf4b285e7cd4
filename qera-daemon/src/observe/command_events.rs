//! Events about the user's command (`--on-publish`).

use core::fmt;

use serde::Serialize;

/// The command printed something.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CommandPrinted {
    /// The generation that the command was told of.
    pub(crate) generation: u64,
    /// The end of what it printed, at most 4 KiB.
    pub(crate) text: String,
    /// Number of bytes before the end that is kept.
    pub(crate) left_out: u64,
}

impl fmt::Display for CommandPrinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            generation,
            text,
            left_out,
        } = self;
        write!(f, "--on-publish for generation {generation} printed")?;
        if *left_out > 0 {
            write!(f, ", after {left_out} bytes that are left out")?;
        }
        write!(f, ": {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_printed_is_told() {
        let printed = |left_out| CommandPrinted {
            generation: 3,
            text: "done".into(),
            left_out,
        };
        assert_eq!(
            printed(0).to_string(),
            "--on-publish for generation 3 printed: done"
        );
        assert_eq!(
            printed(9).to_string(),
            "--on-publish for generation 3 printed, after 9 bytes that are left out: done"
        );
        assert_eq!(
            serde_json::to_string(&printed(9)).unwrap(),
            r#"{"generation":3,"text":"done","left_out":9}"#
        );
    }
}
