//! Parse, resolve, run, exit.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use qera_daemon::cli::{Cli, Command};
use qera_daemon::error::Stop;
use qera_daemon::exit::Exit;
use qera_daemon::observe::{Event, Reporter};
use qera_daemon::run;
use qera_daemon::settings::{Layered, LogFormat, Settings};

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
        return print(&layered.show());
    }
    let settings = Settings::resolve(&layered.options)?;
    if let Some(Command::Plan) = command {
        let job = run::Job::prepare(&settings)?;
        print(&job.plan.text(&settings))?;
        for message in job.refused() {
            reporter.say(&Event::ShardQuarantined {
                message: message.clone(),
            });
        }
        job.plan.check(&settings)?;
        return Ok(Exit::Done);
    }
    run::once(&settings, reporter)
}

fn print(text: &str) -> Result<Exit, Stop> {
    let stdout = std::path::Path::new("standard output");
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Stop::io(stdout, "write"))?;
    Ok(Exit::Done)
}

fn fail(reporter: &Reporter, stop: &Stop) -> ExitCode {
    reporter.say(&Event::Failed {
        message: stop.to_string(),
    });
    stop.exit().into()
}
