//! The command line: parse, resolve, run, exit.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::commands::export::export_imatrix;
use crate::commands::report::{ReportOrder, report};
use crate::commands::verify::{Verification, verify};
use crate::error::Fatal;
use crate::exit::Exit;
use crate::host::allocator::map_large_arrays;
use crate::observe::event::Event;
use crate::observe::reporter::Reporter;
use crate::report::standing::AskedState;
use crate::settings::Settings;
use crate::settings::layered::Layered;
use crate::settings::log_format::LogFormat;
use crate::settings::options::Options;
use crate::settings::replay::ReplaySettings;
use crate::{commands, run};

/// Turns activations and a checkpoint into a low-rank adapter that corrects quantization error.
///
/// Exit codes: 0 done; 1 failure, also a file that the disk does not give; 2 usage; 3 done, but
/// input was quarantined or a layer could not be solved (--once, solve); 4 the output folder or the
/// state belongs to other settings, or is damaged so that going on would lose rows; 5 the plan does
/// not fit the memory budget; 75 the output folder or the state is in use; 130 or 143 a second
/// SIGINT or SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "qera-daemon", version, about, long_about)]
pub(crate) struct Cli {
    /// What to do instead of the main job.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// TOML file with any of the options; the command line wins
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,

    /// The options.
    #[command(flatten)]
    pub(crate) options: Options,
}

/// Subcommands; all options may follow them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make another adapter from a state's statistics, with another method, rank, quantizer or
    /// shrinkage, into another --out
    Solve,
    /// Show what a state holds, and what the daemon that works with it is doing
    Status(StatusArgs),
    /// Write what a state knows as another program's file
    Export(ExportArgs),
    /// Show what the current generation of --out is worth, layer by layer: a short table, or with
    /// --html a page with charts
    Report(ReportArgs),
    /// Print the memory per site, layer and stage, and the expected work; start nothing
    Plan,
    /// Check the files of an adapter, qera's or another's (PEFT's, a GGUF, mlx-lm's), against the
    /// model that it is served on; exit code 1 when something is wrong
    Verify(VerifyArgs),
    /// Show the merged settings, if a run would accept them
    Config(ConfigArgs),
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// What to export.
    #[command(subcommand)]
    pub(crate) what: Exported,
}

/// What can be exported.
#[derive(Debug, Subcommand)]
pub(crate) enum Exported {
    /// E[x^2], the number of rows and the mean of x of every layer's input, in --out FILE, for
    /// llama.cpp's llama-quantize --imatrix. --state DIR names the statistics; --checkpoint says
    /// what their layers are called in a GGUF, unless llama.cpp's tap recorded them
    Imatrix,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A generation (OUT/current, say), a folder with PEFT's files or mlx-lm's, or a GGUF adapter
    #[arg(long, value_name = "PATH")]
    pub(crate) adapter: PathBuf,

    /// Folder or GGUF of the quantized model that it is served on [default: the one that the
    /// adapter names, or what OUT holds]
    #[arg(long, value_name = "PATH")]
    pub(crate) base: Option<PathBuf>,

    /// Also send the recorded rows in this folder of shards through the full-precision weights
    /// (--checkpoint), through the base, and through the base with the adapter, as their files have
    /// them, and compare the layers' errors with the manifest's; a layer whose error the adapter
    /// makes larger is a problem. --include, --exclude and --map as in a run [default: the
    /// adapter's layers]
    #[arg(long, value_name = "DIR")]
    pub(crate) replay: Option<PathBuf>,

    /// With --replay: the most rows for each layer, evenly spaced over the shards [default: all]
    #[arg(long, value_name = "N", requires = "replay")]
    pub(crate) replay_rows: Option<usize>,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

impl VerifyArgs {
    fn resolve(&self, options: &Options) -> Result<Verification, Fatal> {
        let replay = self.replay.as_deref();
        let replay = replay.map(|of| ReplaySettings::resolve(options, of, self.replay_rows));
        Ok(Verification {
            adapter: self.adapter.clone(),
            base: self.base.clone(),
            replay: replay.transpose()?,
            json: self.json,
        })
    }
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Write a page to this file: it needs no network, and no other file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// Arguments of `config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Print every setting and where it came from
    #[arg(long, required = true)]
    pub(crate) show: bool,
}

/// Does what the process was asked on its command line; the exit code is what becomes of it.
#[must_use]
pub fn command_line() -> ExitCode {
    map_large_arrays();
    let cli = Cli::parse();
    let layered = match Layered::merge(cli.config.as_deref(), &cli.options) {
        Ok(layered) => layered,
        Err(fatal) => return fail(&Reporter::new(LogFormat::Text), &fatal),
    };
    let format = LogFormat::resolve(&layered.options).unwrap_or(LogFormat::Text);
    let mut reporter = Reporter::new(format);
    match job(cli.command.as_ref(), &layered, &mut reporter) {
        Ok(exit) => {
            reporter.end();
            exit.into()
        }
        Err(fatal) => fail(&reporter, &fatal),
    }
}

fn job(
    command: Option<&Command>,
    layered: &Layered,
    reporter: &mut Reporter,
) -> Result<Exit, Fatal> {
    if let Some(Command::Verify(verified)) = command {
        let order = verified.resolve(&layered.options);
        return verify(&order.map_err(|e| layered.with_place(e))?);
    }
    if let Some(Command::Export(_)) = command {
        layered.needs(
            "state",
            "--state DIR is needed: the statistics that are exported",
        )?;
        layered.needs("out", "--out FILE is needed: the imatrix")?;
    }
    let settings = Settings::resolve(&layered.options).map_err(|e| layered.with_place(e))?;
    match command {
        // Shown only where they are settings that a run would take.
        Some(Command::Config(_)) => commands::print(&layered.show()),
        Some(Command::Plan) => commands::plan(&settings, reporter),
        Some(Command::Solve) => {
            settings.rounding.refuse_round_after("solve")?;
            commands::solve(&settings, layered.is_said("window-memory"), reporter)
        }
        Some(Command::Export(ExportArgs {
            what: Exported::Imatrix,
        })) => export_imatrix(&settings, &settings.publish.out, reporter),
        Some(Command::Status(status)) => commands::status(&settings, status.json),
        Some(Command::Report(args)) => report(&ReportOrder {
            out: &settings.publish.out,
            state: AskedState {
                path: &settings.state,
                is_named: layered.is_said("state"),
            },
            html: args.html.clone(),
        }),
        _ => run::run(&settings, reporter),
    }
}

fn fail(reporter: &Reporter, fatal: &Fatal) -> ExitCode {
    reporter.say(&Event::Failed {
        message: fatal.to_string(),
    });
    fatal.exit().into()
}
