//! The command of `--on-publish`, run once: its environment, its limit of time, its end.

use core::time::Duration;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use crate::disk::clock::{now, since};
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
    /// The system does not say what became of it.
    #[error("cannot wait for it: {0}")]
    Wait(std::io::Error),
}

/// Runs the command once.
///
/// # Errors
/// [`CommandError`].
pub(crate) fn run(
    command: &str,
    publication: &Published,
    limits: Limits,
) -> Result<(), CommandError> {
    let mut child = shell(command, publication)
        .spawn()
        .map_err(CommandError::Start)?;
    let begun = now();
    let mut nap = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(CommandError::Ended(status)),
            Ok(None) if since(begun) < limits.command => {}
            Ok(None) => {
                kill_group(&mut child);
                return Err(CommandError::Killed {
                    limit: limits.command,
                });
            }
            Err(error) => {
                kill_group(&mut child);
                return Err(CommandError::Wait(error));
            }
        }
        thread::sleep(nap);
        nap = (nap * 2).min(limits.look);
    }
}

/// `sh -c CMD` with what it is to know. Standard output is for the daemon's own answers, so what
/// the command prints goes to standard error. It leads a process group, so that what it starts can
/// be killed with it, and so that Ctrl-C on a terminal reaches the daemon alone.
fn shell(command: &str, publication: &Published) -> Command {
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
        .stdout(Stdio::from(std::io::stderr()))
        .stderr(Stdio::inherit())
        .process_group(0);
    shell
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
