//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::settings::Options;

/// Turns activations and a checkpoint into a low-rank adapter that corrects quantization error.
///
/// Exit codes: 0 done; 1 failure; 2 usage; 3 done, but input was quarantined (--once); 4 the output folder or the
/// state belongs to other settings, or is damaged; 5 does not fit the memory budget; 75 the output folder or the state is
/// in use; 130 or 143 a second SIGINT or SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "qera-daemon", version, about, long_about)]
pub struct Cli {
    /// What to do instead of the main job.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// TOML file with any of the options; the command line wins
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// The options.
    #[command(flatten)]
    pub options: Options,
}

/// Subcommands; all options may follow them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Solve again from a state's statistics, with another method, rank, quantizer or shrinkage, into another --out
    Solve,
    /// What a state holds and what the daemon that works with it is doing
    Status(StatusArgs),
    /// Print the memory per site, layer and stage, and the expected work; start nothing
    Plan,
    /// The merged settings
    Config(ConfigArgs),
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Print every setting and where it came from
    #[arg(long, required = true)]
    pub show: bool,
}
