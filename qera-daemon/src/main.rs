//! Parse, resolve, run, exit.

use std::process::ExitCode;

use clap::Parser;
use qera_daemon::cli::{Cli, Command};
use qera_daemon::error::Stop;
use qera_daemon::exit::Exit;
use qera_daemon::observe::{Event, Reporter};
use qera_daemon::settings::{Layered, LogFormat, Settings};
use qera_daemon::{commands, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let layered = match Layered::merge(cli.config.as_deref(), &cli.options) {
        Ok(layered) => layered,
        Err(stop) => return fail(&Reporter::new(LogFormat::Text), &stop),
    };
    let format = LogFormat::resolve(&layered.options).unwrap_or(LogFormat::Text);
    let mut reporter = Reporter::new(format);
    match job(cli.command.as_ref(), &layered, &mut reporter) {
        Ok(exit) => exit.into(),
        Err(stop) => fail(&reporter, &stop),
    }
}

fn job(
    command: Option<&Command>,
    layered: &Layered,
    reporter: &mut Reporter,
) -> Result<Exit, Stop> {
    if let Some(Command::Config(_)) = command {
        return commands::print(&layered.show());
    }
    let settings = Settings::resolve(&layered.options)?;
    match command {
        Some(Command::Plan) => commands::plan(&settings, reporter),
        Some(Command::Solve) => commands::solve(&settings, reporter),
        Some(Command::Status(status)) => commands::status(&settings, status.json),
        _ => run::run(&settings, reporter),
    }
}

fn fail(reporter: &Reporter, stop: &Stop) -> ExitCode {
    reporter.say(&Event::Failed {
        message: stop.to_string(),
    });
    stop.exit().into()
}
