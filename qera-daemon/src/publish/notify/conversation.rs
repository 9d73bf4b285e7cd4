//! A conversation with one server: each request by its path, and what its answer means.

use core::time::Duration;
use std::time::Instant;

use crate::disk::clock::{now, since};
use crate::network::{Client, HttpAnswer, Request};
use crate::observe::notify_events::SwapKind;
use crate::publish::notify::problem::Problem;
use crate::publish::notify::protocol::{
    COMPLETIONS, LOAD, MODELS, ServedModels, UNLOAD, is_not_loaded, load, prompt_logprobs, score,
    touch, unload, was_put_aside,
};
use crate::publish::notify::reconcile::Swap;
use crate::settings::notify::Token;

/// Time limit of a request that lists models.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// Time limit of a request that the engine serves between two steps, since it may be busy with a
/// long prompt.
const WORK_LIMIT: Duration = Duration::from_secs(120);

/// One server, asked with one token.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// The client that makes the requests.
    pub(crate) client: Client,
    /// The server's URL.
    pub(crate) url: String,
    /// The token that the server asks for.
    pub(crate) token: Option<Token>,
}

/// An adapter's name, and the generation that it shall stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NamedAdapter<'a> {
    /// The server's name.
    pub(crate) name: &'a str,
    /// The generation's folder, as the server sees it.
    pub(crate) path: &'a str,
}

/// The outcome of a swap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Swapped {
    /// The kind of swap.
    pub(crate) kind: SwapKind,
    /// For how long the name was unknown.
    pub(crate) window: Option<Duration>,
}

impl Conversation {
    /// Asks the server what it serves.
    ///
    /// # Errors
    /// [`Problem`].
    pub(crate) fn look(&self) -> Result<ServedModels, Problem> {
        let answer = self.ask(MODELS, None, None, LOOK_LIMIT)?;
        if answer.status != 200 {
            return Err(Problem::of(MODELS, &answer, ""));
        }
        ServedModels::parse(&answer.body).map_err(|error| Problem::Answer {
            asked: MODELS,
            what: error.to_string(),
        })
    }

    /// Loads an adapter under a free name, or in place of the one that has the name.
    ///
    /// # Errors
    /// [`Problem`].
    pub(crate) fn load(&self, adapter: NamedAdapter<'_>, in_place: bool) -> Result<(), Problem> {
        let body = load(adapter.name, adapter.path, in_place);
        let answer = self.ask(LOAD, Some(body), None, WORK_LIMIT)?;
        match answer.status {
            200 => Ok(()),
            _ => Err(Problem::of(LOAD, &answer, adapter.path)),
        }
    }

    /// Unloads an adapter; if it is not there, that is as good. Returns since when the name has
    /// been unknown.
    ///
    /// # Errors
    /// [`Problem`].
    pub(crate) fn unload(&self, name: &str) -> Result<Instant, Problem> {
        let begun = now();
        let answer = self.ask(UNLOAD, Some(unload(name)), None, WORK_LIMIT)?;
        if !was_put_aside(&answer.body) {
            return unloaded(&answer).map(|()| begun);
        }
        // With --max-loras 1 the canary has taken the adapter's place, and vLLM unloads only what
        // is in the engine. A request to the adapter brings it back.
        let id = format!("qera-touch-{name}");
        self.ask(COMPLETIONS, Some(touch(name)), Some(&id), WORK_LIMIT)?;
        let begun = now();
        let answer = self.ask(UNLOAD, Some(unload(name)), None, WORK_LIMIT)?;
        unloaded(&answer).map(|()| begun)
    }

    /// Makes a name stand for a generation.
    ///
    /// # Errors
    /// [`Problem`]. What the name stood for before is loaded again then, if possible.
    pub(crate) fn swap(&self, adapter: NamedAdapter<'_>, how: &Swap) -> Result<Swapped, Problem> {
        let (kind, root) = match how {
            Swap::Load => (SwapKind::Loaded, None),
            Swap::InPlace => (SwapKind::InPlace, None),
            Swap::Replace { root } => (SwapKind::Replaced, Some(root)),
        };
        let Some(root) = root else {
            self.load(adapter, *how == Swap::InPlace)?;
            return Ok(Swapped { kind, window: None });
        };
        let begun = self.unload(adapter.name)?;
        if let Err(problem) = self.load(adapter, false) {
            if let Some(path) = root.as_deref().filter(|path| *path != adapter.path) {
                let before = NamedAdapter { path, ..adapter };
                // The failure that led here is told; what is missing is seen at the next look.
                let _ = self.load(before, false);
            }
            return Err(problem);
        }
        Ok(Swapped {
            kind,
            window: Some(since(begun)),
        })
    }

    /// The logarithms of the probabilities that a model gives to the tokens of a text. The
    /// request's id begins with `qera-`, so that the tap does not record it.
    ///
    /// # Errors
    /// [`Problem`].
    pub(crate) fn score(&self, model: &str, text: &str, id: &str) -> Result<Vec<f64>, Problem> {
        let body = score(model, text);
        let answer = self.ask(COMPLETIONS, Some(body), Some(id), WORK_LIMIT)?;
        if answer.status != 200 {
            return Err(Problem::of(COMPLETIONS, &answer, ""));
        }
        prompt_logprobs(&answer.body).map_err(|error| Problem::Answer {
            asked: COMPLETIONS,
            what: error.to_string(),
        })
    }

    fn ask(
        &self,
        path: &str,
        body: Option<Vec<u8>>,
        id: Option<&str>,
        limit: Duration,
    ) -> Result<HttpAnswer, Problem> {
        let request = Request {
            url: &format!("{}{path}", self.url),
            body,
            authorization: self.token.as_ref().map(Token::header),
            id,
            limit,
        };
        Ok(self.client.ask(request)?)
    }
}

fn unloaded(answer: &HttpAnswer) -> Result<(), Problem> {
    if answer.status == 200 || is_not_loaded(answer.status, &answer.body) {
        return Ok(());
    }
    Err(Problem::of(UNLOAD, answer, ""))
}
