//! Reports what becomes of the servers that are notified, in the log and in the status.

use crate::observe::event::Event;
use crate::observe::notify_events::ServerStatus;
use crate::pipeline::context::Context;
use crate::publish::notify::Audience;

/// Reports what becomes of the servers that are notified.
#[derive(Clone, Copy)]
pub(crate) struct Listener<'a>(pub(crate) &'a Context<'a>);

impl Audience for Listener<'_> {
    fn say(&self, event: &Event<'_>) {
        self.0.reporter.say(event);
    }

    fn show(&self, status: &ServerStatus) {
        self.0.ledger.server_seen(status);
    }
}
