//! Runs the command of `--on-publish` once: with its environment and time limit, to its end, and
//! with what it printed.

use core::time::Duration;
use std::io::PipeWriter;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use crate::disk::clock::{now, since};
use crate::publish::on_publish::patience::Patience;
use crate::publish::on_publish::printed::{PrintedEnd, Printing};
use crate::publish::on_publish::{Limits, Published};

/// Why an attempt has failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The system starts no shell.
    #[error("cannot start: {0}")]
    Start(std::io::Error),
    /// The command ended with a failure.
    #[error("{0}")]
    Ended(ExitStatus),
    /// The command ran longer than it may, and was killed.
    #[error("killed, it ran for more than {} s", limit.as_secs_f64())]
    Killed {
        /// The time that it may run.
        limit: Duration,
    },
    /// The run was about to end and waited no longer, so that the command was killed.
    #[error("killed, the run was told to end and waited {} s for it", at_most.as_secs_f64())]
    CutOff {
        /// The time that the run waits.
        at_most: Duration,
    },
    /// The system does not say how the command ended.
    #[error("cannot wait for it: {0}")]
    Wait(std::io::Error),
}

/// The result of an attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// Whether the attempt succeeded.
    pub(crate) outcome: Result<(), CommandError>,
    /// What the command printed; `None` where it did not start.
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

/// Starts the command. Only the command holds the writing end of the pipe, so that reading ends
/// with it.
fn start(command: &str, publication: &Published) -> std::io::Result<StartedCommand> {
    let (reader, writer) = std::io::pipe()?;
    let child = shell(command, publication, writer)?.spawn()?;
    let printing = Printing::read(reader)?;
    Ok(StartedCommand { child, printing })
}

/// Waits until the command ends, or kills it when its time is over.
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

/// `sh -c CMD` with its environment. Standard output is for the daemon's own answers, and a log is
/// no place for all that a command prints, so that both outputs of the command go into one pipe.
/// The command leads a process group: so all that it starts can be killed with it, and Ctrl-C on a
/// terminal reaches the daemon alone.
fn shell(command: &str, publication: &Published, output: PipeWriter) -> std::io::Result<Command> {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .env("QERA_GENERATION", publication.generation.to_string())
        .env("QERA_PATH", &publication.path)
        .env("QERA_CURRENT", &publication.current)
        // A container engine would take this variable as its own, and speak to the service manager
        // in the daemon's name.
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
    // Where no shell could be started, at least the child itself is killed. If it is gone already
    // this does nothing.
    let _ = child.kill();
    let _ = child.wait();
}
