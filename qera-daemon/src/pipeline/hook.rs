//! The user's command (`--on-publish`): which generations it is told of, and where its outcome is
//! reported.

use crate::error::Fatal;
use crate::observe::command_events::CommandPrinted;
use crate::observe::event::Event;
use crate::observe::reporter::Reporter;
use crate::pipeline::context::Context;
use crate::publish::on_publish::told::ToldMemory;
use crate::publish::on_publish::{CommandSaid, OnPublish, Published};
use crate::publish::out_folder::OutFolder;
use crate::publish::target::Target;

/// The command, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Hook(Option<OnPublish>);

impl Hook {
    /// Starts the command's thread. If the run that published the current generation was killed
    /// before the command ran for it, the command is told now, unless the generation is damaged.
    ///
    /// # Errors
    /// [`Fatal::Io`] when the system gives no thread, or does not say what the current one is.
    pub(crate) fn start(context: &Context<'_>, target: &Target<'_>) -> Result<Self, Fatal> {
        let out = &target.out;
        let Some(command) = &context.settings.publish.on_publish else {
            return Ok(Self(None));
        };
        let memory = ToldMemory::of(&out.path);
        let untold = out.current_generation()?;
        let untold = untold.filter(|_| target.damage().is_none());
        let untold = untold.filter(|&generation| !memory.was_told(generation));
        let reporter = context.reporter.clone();
        let say = move |said| say(&reporter, said);
        let hook = Self(Some(OnPublish::start(command.clone(), memory, say)?));
        if let Some(generation) = untold {
            hook.published(out, generation);
        }
        Ok(hook)
    }

    /// Tells the command of a generation that has become the current one. Returns at once.
    pub(crate) fn published(&self, out: &OutFolder, generation: u64) {
        if let Some(command) = &self.0 {
            command.published(Published {
                generation,
                path: out.generation(generation),
                current: out.path.join("current"),
            });
        }
    }

    /// Waits for the command to end; not for long once a signal came.
    pub(crate) fn finish(self, context: &Context<'_>) {
        if let Some(command) = self.0 {
            command.finish(|| context.stopping());
        }
    }
}

fn say(reporter: &Reporter, said: CommandSaid) {
    reporter.say(&match said {
        CommandSaid::Failed(message) => Event::Warning {
            subject: "--on-publish",
            message,
        },
        CommandSaid::Printed {
            generation,
            printed,
        } => Event::CommandPrinted(CommandPrinted {
            generation,
            text: printed.text,
            left_out: printed.left_out,
        }),
    });
}
