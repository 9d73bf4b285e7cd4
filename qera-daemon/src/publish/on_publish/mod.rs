//! `--on-publish CMD`: the user's command after each publication, on a thread of its own, so that a
//! slow or broken command never holds up a publication.

pub(crate) mod command;
pub(crate) mod patience;
pub(crate) mod printed;
pub(crate) mod told;

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::error::Fatal;
use crate::publish::on_publish::command::{CommandError, run};
use crate::publish::on_publish::patience::Patience;
use crate::publish::on_publish::printed::PrintedEnd;
use crate::publish::on_publish::told::ToldMemory;

/// How long a command may take and how often it is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A command that runs longer is killed, so that it cannot keep later publications from being
    /// told.
    pub(crate) command: Duration,
    /// Pauses before the second and the third attempt: an engine that restarts needs a moment.
    pub(crate) pauses: [Duration; 2],
    /// The longest sleep between two looks at a running command.
    pub(crate) look: Duration,
    /// How long a run that was told to end waits for the command, all attempts together.
    pub(crate) at_the_end: Duration,
}

const LIMITS: Limits = Limits {
    command: Duration::from_secs(60),
    pauses: [Duration::from_secs(1), Duration::from_secs(4)],
    look: Duration::from_millis(100),
    at_the_end: Duration::from_secs(10),
};

/// The facts of a publication that the command gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// The generation's number, `QERA_GENERATION`.
    pub(crate) generation: u64,
    /// The folder of the generation, given to the command as `QERA_PATH`.
    pub(crate) path: PathBuf,
    /// The symlink to the newest generation, `QERA_CURRENT`.
    pub(crate) current: PathBuf,
}

/// A report about a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommandSaid {
    /// An attempt failed, for this reason.
    Failed(String),
    /// An attempt printed something.
    Printed {
        /// The generation that the command was told of.
        generation: u64,
        /// The end of what it printed.
        printed: PrintedEnd,
    },
}

/// The thread that runs the command; one that is dropped without [`OnPublish::finish`] is left to
/// itself.
#[derive(Debug)]
pub(crate) struct OnPublish {
    publications: Sender<Published>,
    patience: Patience,
    thread: JoinHandle<()>,
}

impl OnPublish {
    /// Starts the thread. `say` is told of each attempt that failed or printed something, `memory`
    /// of each generation that has had its attempts.
    ///
    /// # Errors
    /// [`Fatal::Io`] when the system gives no thread.
    pub(crate) fn start(
        command: String,
        memory: ToldMemory,
        say: impl Fn(CommandSaid) + Send + 'static,
    ) -> Result<Self, Fatal> {
        Self::with_limits(command, memory, say, LIMITS)
    }

    fn with_limits(
        command: String,
        memory: ToldMemory,
        say: impl Fn(CommandSaid) + Send + 'static,
        limits: Limits,
    ) -> Result<Self, Fatal> {
        let (publications, waiting) = unbounded();
        let patience = Patience::of(limits.at_the_end);
        let runner = Runner {
            command,
            memory,
            say,
            limits,
            waiting,
            patience: patience.clone(),
        };
        let thread = thread::Builder::new()
            .name("on-publish".into())
            .spawn(move || runner.run())
            .map_err(Fatal::io(Path::new("--on-publish"), "start the thread"))?;
        Ok(Self {
            publications,
            patience,
            thread,
        })
    }

    /// Hands a publication over and returns at once. Where several wait, only the newest is told:
    /// the command is to make the newest generation known, and an older one is of no use by then.
    pub(crate) fn published(&self, what: Published) {
        // This fails only if the thread panicked; the panic's own message has told that.
        let _ = self.publications.send(what);
    }

    /// Waits until the newest publication's command has been run, with its retries. With the limits
    /// above that takes at most about four minutes, even if the command before it hangs. Once
    /// `is_stopped` says that somebody waits for the run to end, it takes at most ten seconds more.
    pub(crate) fn finish(self, is_stopped: impl Fn() -> bool) {
        drop(self.publications);
        while !self.thread.is_finished() {
            if is_stopped() {
                self.patience.begin();
            }
            thread::sleep(Duration::from_millis(5));
        }
        // A panic has told its own message, and no result depends on the command.
        let _ = self.thread.join();
    }
}

/// How telling the command of a publication ended.
enum Told {
    /// The command succeeded, or its attempts are used up.
    Done,
    /// A newer generation was published, so the command is told that one instead.
    Newer(Published),
    /// The run waits no longer, and the command was not told.
    CutOff,
}

/// The part of [`OnPublish`] that runs on the thread.
struct Runner<F> {
    command: String,
    memory: ToldMemory,
    say: F,
    limits: Limits,
    waiting: Receiver<Published>,
    patience: Patience,
}

impl<F: Fn(CommandSaid)> Runner<F> {
    /// Runs the command for the newest publication, again and again, until the sender is gone or
    /// the run waits no longer. A publication that was not told then is told by the next run.
    fn run(&self) {
        let mut next = self.waiting.recv().ok();
        while let Some(publication) = next {
            let newest = self.waiting.try_iter().last().unwrap_or(publication);
            next = match self.tell(&newest) {
                Told::Done => {
                    self.remember(newest.generation);
                    self.waiting.recv().ok()
                }
                Told::Newer(newer) => Some(newer),
                Told::CutOff => None,
            };
        }
    }

    /// Runs the command until it succeeds or its attempts are used up; a newer publication ends the
    /// attempts.
    fn tell(&self, publication: &Published) -> Told {
        let pauses = self.limits.pauses.map(Some).into_iter().chain([None]);
        let attempts = self.limits.pauses.len() + 1;
        for (index, pause) in pauses.enumerate() {
            if self.patience.is_over() {
                return Told::CutOff;
            }
            let attempt = run(&self.command, publication, self.limits, &self.patience);
            let generation = publication.generation;
            let printed = attempt.printed.filter(|of| !of.text.is_empty());
            if let Some(printed) = printed {
                (self.say)(CommandSaid::Printed {
                    generation,
                    printed,
                });
            }
            let Err(reason) = attempt.outcome else {
                return Told::Done;
            };
            (self.say)(CommandSaid::Failed(format!(
                "generation {generation}: {reason} (attempt {} of {attempts})",
                index + 1
            )));
            if matches!(reason, CommandError::CutOff { .. }) {
                return Told::CutOff;
            }
            if let Some(newer) = pause.and_then(|pause| self.newer_within(pause)) {
                return Told::Newer(newer);
            }
        }
        Told::Done
    }

    /// Pauses, and returns early with a publication that comes or is waiting.
    fn newer_within(&self, pause: Duration) -> Option<Published> {
        match self.waiting.recv_timeout(pause) {
            Ok(newer) => Some(newer),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                // The daemon ends, so that nothing newer will come, but the pause is as useful as
                // before.
                thread::sleep(self.patience.left().map_or(pause, |left| pause.min(left)));
                None
            }
        }
    }

    /// Notes that the next run need not tell this generation again. Where that cannot be written,
    /// the next run does.
    fn remember(&self, generation: u64) {
        if let Err(error) = self.memory.remember(generation) {
            (self.say)(CommandSaid::Failed(format!(
                "generation {generation} is told again by the next run: {error}"
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::clock::{now, since};
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::fs;
    use std::process::Command;

    const PATIENCE: Duration = Duration::from_secs(30);
    const SHORT: Limits = Limits {
        command: PATIENCE,
        pauses: [Duration::from_millis(1); 2],
        look: Duration::from_millis(2),
        at_the_end: PATIENCE,
    };

    /// A folder that is removed at the end; its name has a space, which the commands must survive.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("qera on-publish-{}-{count}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// The command, run in this folder.
        fn command(&self, command: &str) -> String {
            format!("cd '{}' && {{ {command}; }}", self.0.display())
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap_or_default()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn generation(generation: u64) -> Published {
        Published {
            generation,
            path: format!("/out put/generations/{generation:06}").into(),
            current: "/out put/current".into(),
        }
    }

    /// The thread and where its complaints arrive.
    fn start(command: String, limits: Limits) -> (OnPublish, Receiver<String>) {
        let (told, complaints) = unbounded();
        let say = move |said| match said {
            CommandSaid::Failed(sentence) => told.send(sentence).unwrap(),
            CommandSaid::Printed { printed, .. } => {
                let PrintedEnd { text, left_out } = printed;
                told.send(format!("printed {text} after {left_out}"))
                    .unwrap();
            }
        };
        let nowhere = ToldMemory::of(Path::new("/out put"));
        let on_publish = OnPublish::with_limits(command, nowhere, say, limits).unwrap();
        (on_publish, complaints)
    }

    /// The answer of a run that nobody has told to end.
    const fn not_stopped() -> bool {
        false
    }

    fn wait_until(what: &str, holds: impl Fn() -> bool) {
        let begun = now();
        while !holds() {
            assert!(since(begun) < PATIENCE, "{what} did not happen");
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn the_command_knows_the_generation_and_stays_off_standard_input_and_output() {
        let folder = Folder::new();
        // Where there is /proc, its standard output must be the same file as its standard error.
        let command = folder.command(
            r#"cat; printf '%s|' "$QERA_GENERATION" "$QERA_PATH" "$QERA_CURRENT" > told
               [ /proc/$$/fd/1 -ef /proc/$$/fd/2 ] || [ ! -e /proc/$$/fd ]"#,
        );
        let (on_publish, complaints) = start(command, SHORT);
        on_publish.published(generation(17));
        on_publish.finish(not_stopped);
        let expected = "17|/out put/generations/000017|/out put/current|";
        assert_eq!(folder.read("told"), expected);
        assert_eq!(complaints.iter().next(), None);
    }

    #[test]
    fn without_a_publication_nothing_runs() {
        let folder = Folder::new();
        let (on_publish, complaints) = start(folder.command("echo ran > told"), SHORT);
        on_publish.finish(not_stopped);
        assert_eq!(folder.read("told"), "");
        assert_eq!(complaints.iter().next(), None);
    }

    #[test]
    fn of_those_that_wait_only_the_newest_runs() {
        let folder = Folder::new();
        let command = folder
            .command(r#"echo "$QERA_GENERATION" >> told; until [ -e go ]; do sleep 0.01; done"#);
        let (on_publish, complaints) = start(command, SHORT);
        on_publish.published(generation(1));
        wait_until("the first command", || folder.read("told") == "1\n");
        for number in 2..=4 {
            on_publish.published(generation(number));
        }
        fs::write(folder.0.join("go"), "").unwrap();
        wait_until("the newest command", || folder.read("told") == "1\n4\n");
        on_publish.published(generation(5));
        on_publish.finish(not_stopped);
        assert_eq!(folder.read("told"), "1\n4\n5\n");
        assert_eq!(complaints.iter().next(), None);
    }

    #[test]
    fn a_failure_is_retried_and_told() {
        let folder = Folder::new();
        let command = folder.command("echo x >> tries; [ $(wc -l < tries) -ge 3 ] || exit 7");
        let (on_publish, complaints) = start(command, SHORT);
        on_publish.published(generation(3));
        on_publish.finish(not_stopped);
        assert_eq!(folder.read("tries"), "x\nx\nx\n");
        let told: Vec<_> = complaints.iter().collect();
        let expected =
            [1, 2].map(|attempt| format!("generation 3: exit status: 7 (attempt {attempt} of 3)"));
        assert_eq!(told, expected);
    }

    #[test]
    fn a_command_that_cannot_start_has_failed() {
        let (on_publish, complaints) = start("true \0".into(), SHORT);
        on_publish.published(generation(3));
        on_publish.finish(not_stopped);
        let told: Vec<_> = complaints.iter().collect();
        assert_eq!(told.len(), 3);
        let begin = "generation 3: cannot start: ";
        assert!(told[2].starts_with(begin) && told[2].ends_with(" (attempt 3 of 3)"));
    }

    #[test]
    fn the_third_failure_is_the_last_and_the_next_publication_is_told() {
        let folder = Folder::new();
        let command = folder.command(r#"echo x >> tries; [ "$QERA_GENERATION" = 2 ]"#);
        let (on_publish, complaints) = start(command, SHORT);
        on_publish.published(generation(1));
        for _ in 0..3 {
            complaints.recv_timeout(PATIENCE).unwrap();
        }
        on_publish.published(generation(2));
        on_publish.finish(not_stopped);
        assert_eq!(folder.read("tries"), "x\nx\nx\nx\n");
        assert_eq!(complaints.iter().next(), None);
    }

    #[test]
    fn a_newer_publication_ends_the_retries_of_an_older_one() {
        let folder = Folder::new();
        let command =
            folder.command(r#"echo "$QERA_GENERATION" >> told; [ "$QERA_GENERATION" = 2 ]"#);
        let limits = Limits {
            pauses: [PATIENCE; 2],
            ..SHORT
        };
        let (on_publish, complaints) = start(command, limits);
        on_publish.published(generation(1));
        complaints.recv_timeout(PATIENCE).unwrap();
        on_publish.published(generation(2));
        on_publish.finish(not_stopped);
        assert_eq!(folder.read("told"), "1\n2\n");
        assert_eq!(complaints.iter().next(), None);
    }

    #[test]
    fn a_command_that_takes_too_long_is_killed_with_all_that_it_started() {
        let folder = Folder::new();
        let pipe = folder.0.join("pipe");
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        // The pipe ends when the last process that can write to it has ended.
        let (ended, end) = unbounded();
        let reader = thread::spawn(move || ended.send(fs::read(pipe).unwrap()).unwrap());
        // Only the first attempt opens it.
        let command = folder.command(
            "mkdir first 2> errors || exit 1; exec 3> pipe; echo up >&3; sleep 600 & sleep 600",
        );
        let limits = Limits {
            command: Duration::from_millis(1500),
            ..SHORT
        };
        let (on_publish, complaints) = start(command, limits);
        on_publish.published(generation(1));
        on_publish.finish(not_stopped);
        assert_eq!(end.recv_timeout(PATIENCE).unwrap(), b"up\n");
        reader.join().unwrap();
        let told: Vec<_> = complaints.iter().collect();
        let expected = [
            "killed, it ran for more than 1.5 s (attempt 1 of 3)",
            "exit status: 1 (attempt 2 of 3)",
            "exit status: 1 (attempt 3 of 3)",
        ]
        .map(|reason| format!("generation 1: {reason}"));
        assert_eq!(told, expected);
    }

    #[test]
    fn of_much_output_the_end_is_kept() {
        let (on_publish, said) = start("yes 0123456 | head -n 100000; echo last".into(), SHORT);
        on_publish.published(generation(1));
        on_publish.finish(not_stopped);
        let said: Vec<_> = said.iter().collect();
        // 800,005 bytes, of which 4,096 stay, the last of them a line's end.
        let [printed] = &said[..] else {
            panic!("{said:?}");
        };
        assert!(printed.ends_with("0123456\nlast after 795909"), "{printed}");
        let text = printed.strip_prefix("printed ").unwrap();
        assert_eq!(text.len(), 4095 + " after 795909".len());
    }

    #[test]
    fn what_a_command_leaves_running_is_not_waited_for() {
        let folder = Folder::new();
        let command = folder.command("{ sleep 20; echo late > late; } & echo up");
        let (on_publish, said) = start(command, SHORT);
        on_publish.published(generation(1));
        on_publish.finish(not_stopped);
        assert_eq!(folder.read("late"), "");
        assert_eq!(said.iter().collect::<Vec<_>>(), ["printed up after 0"]);
    }

    #[test]
    fn a_run_that_was_told_to_end_waits_once_for_all_attempts() {
        let folder = Folder::new();
        let command = folder.command("echo x >> tries; trap '' TERM; sleep 600");
        let limits = Limits {
            at_the_end: Duration::from_millis(700),
            ..SHORT
        };
        let (on_publish, said) = start(command, limits);
        on_publish.published(generation(1));
        wait_until("the command", || folder.read("tries") == "x\n");
        on_publish.finish(|| true);
        assert_eq!(folder.read("tries"), "x\n");
        assert_eq!(
            said.iter().collect::<Vec<_>>(),
            [
                "generation 1: killed, the run was told to end and waited 0.7 s \
                 for it (attempt 1 of 3)"
            ]
        );
    }

    /// An output folder with the manifests of these generations.
    fn with_generations(numbers: &[u64]) -> Folder {
        let folder = Folder::new();
        for number in numbers {
            let own = folder.0.join(format!("generations/{number:06}"));
            fs::create_dir_all(&own).unwrap();
            fs::write(own.join("qera_manifest.json"), format!("{number}")).unwrap();
        }
        folder
    }

    fn remembering(folder: &Folder, command: &str, limits: Limits) -> OnPublish {
        let memory = ToldMemory::of(&folder.0);
        OnPublish::with_limits(command.into(), memory, |_| {}, limits).unwrap()
    }

    #[test]
    fn what_had_its_attempts_is_remembered_by_number_and_manifest() {
        let folder = with_generations(&[1, 2]);
        let memory = ToldMemory::of(&folder.0);
        let run_for = |number: u64, command: &str| {
            let on_publish = remembering(&folder, command, SHORT);
            on_publish.published(generation(number));
            on_publish.finish(not_stopped);
        };
        assert!(!memory.was_told(1));
        run_for(1, "exit 1");
        assert!(memory.was_told(1) && !memory.was_told(2));
        run_for(2, "true");
        assert!(memory.was_told(2) && !memory.was_told(1));
        // Another folder began anew in its place.
        fs::write(
            folder.0.join("generations/000002/qera_manifest.json"),
            "other",
        )
        .unwrap();
        assert!(!memory.was_told(2));
        run_for(2, "true");
        fs::write(folder.0.join("on_publish.json"), "{").unwrap();
        assert!(!memory.was_told(2));
    }

    #[test]
    fn what_was_cut_off_is_not_remembered_and_nothing_begins_after_it() {
        let folder = with_generations(&[1, 2]);
        let command = folder.command(r#"echo "$QERA_GENERATION" >> told; sleep 600"#);
        let limits = Limits {
            at_the_end: Duration::from_millis(300),
            ..SHORT
        };
        let on_publish = remembering(&folder, &command, limits);
        on_publish.published(generation(1));
        wait_until("the command", || folder.read("told") == "1\n");
        on_publish.published(generation(2));
        on_publish.finish(|| true);
        assert_eq!(folder.read("told"), "1\n");
        let memory = ToldMemory::of(&folder.0);
        assert!(!memory.was_told(1) && !memory.was_told(2));
    }
}
