//! The command of `--on-publish`, run once: its environment, its limit of time, its end, and what
//! it printed.

use core::time::Duration;
use std::io::PipeWriter;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use crate::disk::clock::{now, since};
use crate::publish::on_publish::patience::Patience;
use crate::publish::on_publish::printed::{PrintedEnd, Printing};
use crate::publish::on_publish::{Limits, Published};

/// Why an attempt does not count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The system starts no shell.
    #[error("cannot start: {0}")]
    Start(std::io::Error),
    /// It ended otherwise than well.
    #[error("{0}")]
    Ended(ExitStatus),
    /// It took too long.
    #[error("killed, it ran for more than {} s", limit.as_secs_f64())]
    Killed {
        /// What it is given.
        limit: Duration,
    },
    /// The run was to end, and did not wait longer.
    #[error("killed, the run was told to end and waited {} s for it", at_most.as_secs_f64())]
    CutOff {
        /// What the run waits.
        at_most: Duration,
    },
    /// The system does not say what became of it.
    #[error("cannot wait for it: {0}")]
    Wait(std::io::Error),
}

/// What became of an attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// Whether it counts.
    pub(crate) outcome: Result<(), CommandError>,
    /// What it printed; nothing where it did not start.
    pub(crate) printed: Option<PrintedEnd>,
}

/// Runs the command once.
pub(crate) fn run(
    command: &str,
    publication: &Published,
    limits: Limits,
    patience: &Patience,
) -> Attempt {
    let (printing, mut child) = match start(command, publication) {
        Ok(started) => (started.printing, started.child),
        Err(error) => {
            return Attempt {
                outcome: Err(CommandError::Start(error)),
                printed: None,
            };
        }
    };
    let outcome = wait(&mut child, limits, patience);
    Attempt {
        outcome,
        printed: Some(printing.end()),
    }
}

struct StartedCommand {
    child: Child,
    printing: Printing,
}

/// The pipe's end that is written to is the command's alone: what is read ends with it.
fn start(command: &str, publication: &Published) -> std::io::Result<StartedCommand> {
    let (reader, writer) = std::io::pipe()?;
    let child = shell(command, publication, writer)?.spawn()?;
    let printing = Printing::read(reader)?;
    Ok(StartedCommand { child, printing })
}

/// Waits until the command ends, or until its time is over, and then ends it.
fn wait(child: &mut Child, limits: Limits, patience: &Patience) -> Result<(), CommandError> {
    let begun = now();
    let mut nap = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(CommandError::Ended(status)),
            Ok(None) if patience.is_over() => {
                kill_group(child);
                let at_most = patience.at_most();
                return Err(CommandError::CutOff { at_most });
            }
            Ok(None) if since(begun) < limits.command => {}
            Ok(None) => {
                kill_group(child);
                return Err(CommandError::Killed {
                    limit: limits.command,
                });
            }
            Err(error) => {
                kill_group(child);
                return Err(CommandError::Wait(error));
            }
        }
        thread::sleep(nap);
        nap = (nap * 2).min(limits.look);
    }
}

/// `sh -c CMD` with what it is to know. Standard output is for the daemon's own answers, and a log
/// is no place for all that a command prints, so both of its outputs go into one pipe. It leads a
/// process group, so that what it starts can be killed with it, and so that Ctrl-C on a terminal
/// reaches the daemon alone.
fn shell(command: &str, publication: &Published, output: PipeWriter) -> std::io::Result<Command> {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .env("QERA_GENERATION", publication.generation.to_string())
        .env("QERA_PATH", &publication.path)
        .env("QERA_CURRENT", &publication.current)
        // A container engine would take it as its own and speak to the service manager for the
        // daemon.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::from(output.try_clone()?))
        .stderr(Stdio::from(output))
        .process_group(0);
    Ok(shell)
}

/// Kills the command and all that it started. The group's number is the child's, which stays taken
/// until the child has been waited for, so no stranger is hit. `kill` is the shell's own: a small
/// image has no other.
fn kill_group(child: &mut Child) {
    let _ = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -s KILL -- -{}", child.id()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // Where no shell could be started, at least the child goes; otherwise it is gone and this does
    // nothing.
    let _ = child.kill();
    let _ = child.wait();
}
