//! One round with a server: it is looked at, and step by step made to serve what it should.

use core::time::Duration;
use std::collections::BTreeSet;
use std::time::Instant;

use crate::disk::clock::{now, since};
use crate::network::Client;
use crate::observe::event::Event;
use crate::observe::notify_events::{
    CanaryShown, CanaryTried, GenerationServed, NotifyFailed, ServerStatus, SwapKind,
};
use crate::publish::generation_id::GenerationId;
use crate::publish::notify::canary::{CanaryAnswers, CanaryTrial, SENTENCE};
use crate::publish::notify::conversation::{Conversation, NamedAdapter, Swapped};
use crate::publish::notify::memory::RejectedCanary;
use crate::publish::notify::problem::{Problem, ProblemKind};
use crate::publish::notify::protocol::{COMPLETIONS, MODELS, ServedModels};
use crate::publish::notify::reconcile::{AdapterNames, Aim, ServerStep, is_at, next_step};
use crate::publish::notify::{Audience, HandOver};
use crate::settings::notify::NotifiedServer;

/// A limit of steps that is larger than any way from one generation to the next needs.
const STEPS_MAX: usize = 16;
/// The longest time that a server is left alone after a swap.
const REST: Duration = Duration::from_secs(30);

/// The rounds with one server, and what they remember.
#[derive(Debug)]
pub(crate) struct ServerRounds<A> {
    server: NotifiedServer,
    names: AdapterNames,
    key: String,
    hand_over: HandOver,
    audience: A,
    client: Client,
    /// Generations that the server does not take, until it is restarted.
    given_up: BTreeSet<u64>,
    /// Whether the server had adapters of our names at the latest look.
    shows: bool,
    /// The latest problem that was said; `None` once it is over.
    said: Option<ProblemKind>,
    /// When one generation last took the place of another in two steps.
    replaced: Option<Instant>,
    status: ServerStatus,
}

/// A generation that the server shall serve.
#[derive(Debug)]
struct WantedGeneration {
    id: GenerationId,
    aim: Aim,
    name: String,
}

impl<A: Audience> ServerRounds<A> {
    /// Rounds with this server, of which none was made yet.
    pub(crate) fn new(server: NotifiedServer, hand_over: HandOver, audience: A) -> Self {
        let key = server.key();
        let status = ServerStatus {
            server: server.url.clone(),
            name: server.name.clone(),
            rejected: hand_over.memory.rejected_by(&key),
            ..ServerStatus::default()
        };
        Self {
            names: AdapterNames {
                name: server.name.clone(),
                naming: server.naming,
            },
            key,
            hand_over,
            audience,
            client: Client::new(),
            given_up: BTreeSet::new(),
            shows: false,
            said: None,
            replaced: None,
            status,
            server,
        }
    }

    /// The time between two looks at a server that serves what it should.
    pub(crate) const fn poll(&self) -> Duration {
        self.server.poll
    }

    /// How long the server is better left alone. Requests that began before the latest swap may
    /// still use an adapter that has no name any more; a third adapter, the canary, would take its
    /// place in the engine.
    pub(crate) fn rest(&self) -> Duration {
        let passed = self.replaced.map(since);
        passed.map_or(Duration::ZERO, |passed| {
            self.server.poll.min(REST).saturating_sub(passed)
        })
    }

    /// Makes one round, and tells how it ended; `newest` is the newest generation.
    ///
    /// # Errors
    /// [`Problem`], which has been told already.
    pub(crate) fn attempt(&mut self, newest: Option<u64>) -> Result<(), Problem> {
        let wanted = self.wanted(newest);
        let generation = wanted.as_ref().map(|of| of.id.number);
        self.status.wanted = generation;
        let result = self.round(wanted.as_ref());
        match &result {
            // If the server does not take the newest generation, what was said about that still
            // holds.
            Ok(()) if generation == newest || self.said.is_some_and(|said| !said.stays) => {
                (self.said, self.status.problem) = (None, None);
            }
            Ok(()) => {}
            Err(problem) => {
                if problem.is_absence() {
                    self.began_anew();
                }
                self.status.problem = Some(problem.to_string());
                self.say(problem, generation);
            }
        }
        self.audience.show(&self.status);
        result
    }

    /// Says a problem once, until it is over.
    fn say(&mut self, problem: &Problem, generation: Option<u64>) {
        let kind = problem.kind();
        if self.said.replace(kind) == Some(kind) {
            return;
        }
        self.audience.say(&Event::NotifyFailed(NotifyFailed {
            server: &self.server.url,
            name: &self.server.name,
            generation,
            // A server that cannot be looked at is looked at again.
            retried: generation.is_none_or(|number| !self.given_up.contains(&number)),
            message: problem.to_string(),
        }));
    }

    /// Notes that the server has gone, or serves nothing of ours any more. It may now take what it
    /// did not take before.
    fn began_anew(&mut self) {
        self.given_up.clear();
        self.shows = false;
        self.status.generation = None;
    }

    /// The generation to be served: the newest, or the one before it where the newest is worse or
    /// is not taken.
    fn wanted(&self, newest: Option<u64>) -> Option<WantedGeneration> {
        let HandOver { memory, out, .. } = &self.hand_over;
        let is_open = |id: &GenerationId| !self.given_up.contains(&id.number);
        let newest = newest
            .and_then(|number| GenerationId::of(out, number))
            .filter(|id| is_open(id) && !memory.is_rejected(id));
        let before = || {
            let confirmed = memory.confirmed(&self.key)?;
            let found = GenerationId::of(out, confirmed.number)?;
            (found == confirmed && is_open(&confirmed)).then_some(confirmed)
        };
        let id = newest.or_else(before)?;
        Some(WantedGeneration {
            aim: Aim {
                generation: id.number,
                path: self.server.path_of(out, id.number),
                is_accepted: memory.is_accepted(&self.key, &id),
            },
            name: self.names.of(id.number),
            id,
        })
    }

    fn round(&mut self, wanted: Option<&WantedGeneration>) -> Result<(), Problem> {
        let conversation = Conversation {
            client: self.client.clone(),
            url: self.server.url.clone(),
            token: self.hand_over.settings.token()?,
        };
        let mut aim = wanted.map(|wanted| wanted.aim.clone());
        let mut swapped = None;
        let mut before = ServerStep::Rest;
        for _ in 0..STEPS_MAX {
            let served = conversation.look()?;
            self.see(&served);
            if let Some(root) = wanted.and_then(|of| self.earlier(&served, of)) {
                self.given_up.extend(wanted.map(|of| of.id.number));
                return Err(Problem::Earlier(root));
            }
            let read = self.hand_over.memory.still_read(&self.key);
            let step = next_step(&served, &self.names, aim.as_ref(), read.as_ref());
            if let (Some(wanted), Some(aim)) = (wanted, &aim)
                && is_at(served.find(&wanted.name), &aim.path)
            {
                self.confirm(wanted, swapped.take())?;
            }
            if step == ServerStep::Rest {
                return Ok(());
            }
            let taken = if step == before {
                Err(Problem::NotShown(step.to_string()))
            } else {
                self.take(&step, &conversation, &served, wanted)
            };
            match taken {
                Ok(StepDone::Swapped(how)) => swapped = Some(how),
                Ok(StepDone::Accepted) => aim.iter_mut().for_each(|aim| aim.is_accepted = true),
                Ok(StepDone::Rejected) => aim = None,
                Ok(StepDone::Done) => {}
                Err(problem) => {
                    if problem.stays() {
                        self.given_up.extend(wanted.map(|of| of.id.number));
                    }
                    return Err(problem);
                }
            }
            before = step;
        }
        Err(Problem::NotShown("the same steps again and again".into()))
    }

    /// Notes what the server serves.
    fn see(&mut self, served: &ServedModels) {
        let mut numbers = self.numbers(served);
        if numbers.is_empty() && self.shows {
            self.began_anew();
        }
        self.shows = !numbers.is_empty();
        numbers.retain(|&number| self.hand_over.memory.was_told(&self.key, number));
        self.status.generation = numbers.last().copied();
    }

    /// The numbers of our generations that the server has under our names.
    fn numbers(&self, served: &ServedModels) -> BTreeSet<u64> {
        let ours = served.adapters().filter(|card| self.names.are_of(&card.id));
        let numbers = ours.filter_map(|card| self.number_at(card.root.as_deref()?));
        numbers.collect()
    }

    /// A path of an earlier output folder that the server still has, if it is a reason for concern:
    /// that folder got at least as far as the wanted generation, so that the server's cache may
    /// know the wanted path from then.
    fn earlier(&self, served: &ServedModels, wanted: &WantedGeneration) -> Option<String> {
        let from = wanted.id.number;
        let numbers = self.numbers(served);
        let mut later = numbers.range(from..);
        let untold = later.find(|&&number| !self.hand_over.memory.was_told(&self.key, number))?;
        Some(self.server.path_of(&self.hand_over.out, *untold))
    }

    /// The number of the generation whose folder on the server is `root`.
    fn number_at(&self, root: &str) -> Option<u64> {
        let number = root.rsplit('/').next()?.parse().ok()?;
        let path = self.server.path_of(&self.hand_over.out, number);
        (path == root).then_some(number)
    }

    fn take(
        &mut self,
        step: &ServerStep,
        conversation: &Conversation,
        served: &ServedModels,
        wanted: Option<&WantedGeneration>,
    ) -> Result<StepDone, Problem> {
        let canary = self.names.canary();
        match step {
            ServerStep::Rest => Ok(StepDone::Done),
            ServerStep::NameTaken(name) => Err(Problem::NameTaken(name.clone())),
            ServerStep::Unload(name) => {
                conversation.unload(name)?;
                if *name == canary {
                    self.withdraw(served)?;
                }
                Ok(StepDone::Done)
            }
            ServerStep::LoadCanary => {
                let Some(wanted) = wanted else {
                    return Ok(StepDone::Done);
                };
                self.remember_telling(wanted)?;
                let loaded = conversation.load(wanted.adapter(&canary), false);
                if loaded.as_ref().is_err_and(Problem::is_answer) {
                    self.forget(&wanted.id)?;
                }
                loaded.map(|()| StepDone::Done)
            }
            ServerStep::Try => wanted.map_or(Ok(StepDone::Done), |wanted| {
                self.try_canary(wanted, conversation, served)
            }),
            ServerStep::Swap(how) => {
                let Some(wanted) = wanted else {
                    return Ok(StepDone::Done);
                };
                self.remember_telling(wanted)?;
                let swapped = conversation.swap(wanted.adapter(&wanted.name), how);
                if swapped.as_ref().is_err_and(Problem::is_answer) {
                    self.forget_others(wanted, served)?;
                }
                let swapped = swapped?;
                self.replaced = swapped.window.map(|_| now());
                Ok(StepDone::Swapped(swapped))
            }
        }
    }

    fn remember_telling(&self, wanted: &WantedGeneration) -> Result<(), Problem> {
        let HandOver { memory, .. } = &self.hand_over;
        memory
            .telling(&self.key, wanted.id.number)
            .map_err(Problem::memory)
    }

    /// Unloads a canary that is worse or could not be scored, and lets its generation go.
    fn withdraw(&self, served: &ServedModels) -> Result<(), Problem> {
        let HandOver { memory, out, .. } = &self.hand_over;
        let canary = served.find(&self.names.canary());
        let root = canary.and_then(|card| card.root.as_deref());
        let id = root
            .and_then(|root| self.number_at(root))
            .and_then(|number| GenerationId::of(out, number));
        let is_over =
            |id: &GenerationId| memory.is_rejected(id) || self.given_up.contains(&id.number);
        match id.filter(is_over) {
            Some(id) => self.forget(&id),
            None => Ok(()),
        }
    }

    /// Notes that the server does not have a generation any more that it was told of as a canary.
    fn forget(&self, id: &GenerationId) -> Result<(), Problem> {
        let memory = &self.hand_over.memory;
        let withdrawn = memory.withdrawn(&self.key, id.number);
        withdrawn.map_err(Problem::memory)
    }

    /// Notes that the server has not taken this generation, and has none of the earlier ones that
    /// it does not list.
    fn forget_others(
        &self,
        wanted: &WantedGeneration,
        served: &ServedModels,
    ) -> Result<(), Problem> {
        let mut kept = self.numbers(served);
        kept.insert(wanted.id.number);
        let memory = &self.hand_over.memory;
        memory.not_taken(&self.key, &kept).map_err(Problem::memory)
    }

    /// Scores the canary, and decides whether its generation is served.
    fn try_canary(
        &mut self,
        wanted: &WantedGeneration,
        conversation: &Conversation,
        served: &ServedModels,
    ) -> Result<StepDone, Problem> {
        let base = served.base().ok_or_else(|| Problem::Answer {
            asked: MODELS,
            what: "no model that adapters belong to".into(),
        })?;
        let text = self.server.canary_text()?;
        let asked = text.as_deref().unwrap_or(SENTENCE);
        let score = |model: &str, which: &str| {
            let id = format!("qera-canary-{:06}-{which}", wanted.id.number);
            conversation.score(model, asked, &id)
        };
        let answers = CanaryAnswers {
            base: [score(&base.id, "base")?, score(&base.id, "base-again")?],
            canary: score(&self.names.canary(), "adapter")?,
        };
        let trial = answers.trial().ok_or_else(|| Problem::Answer {
            asked: COMPLETIONS,
            what: "different numbers of tokens for one text".into(),
        })?;
        let digest = text.map(|text| blake3::hash(text.as_bytes()).to_hex().to_string());
        self.judge(wanted, &trial, digest.as_deref())
    }

    fn judge(
        &mut self,
        wanted: &WantedGeneration,
        trial: &CanaryTrial,
        text: Option<&str>,
    ) -> Result<StepDone, Problem> {
        let memory = &self.hand_over.memory;
        let best = text.and_then(|text| memory.best(&self.key, text));
        let bad_beside = best.filter(|_| !trial.is_good(best));
        let remembered = match bad_beside {
            None => memory.accepted(&self.key, &wanted.id, text, trial),
            Some(best) => memory.reject(RejectedCanary {
                generation: wanted.id.clone(),
                server: self.key.clone(),
                trial: *trial,
                best,
            }),
        };
        remembered.map_err(Problem::memory)?;
        let shown = CanaryShown {
            loss: trial.loss,
            base_loss: trial.base_loss,
            best_loss: best,
            difference: trial.difference,
            base_difference: trial.base_difference,
        };
        self.audience.say(&Event::Canary(CanaryTried {
            server: &self.server.url,
            generation: wanted.id.number,
            accepted: bad_beside.is_none(),
            shown,
        }));
        self.status.canary = Some(shown);
        if bad_beside.is_none() {
            return Ok(StepDone::Accepted);
        }
        self.status.rejected.push(wanted.id.number);
        Ok(StepDone::Rejected)
    }

    /// Notes that `/v1/models` lists the generation's folder.
    fn confirm(
        &mut self,
        wanted: &WantedGeneration,
        swapped: Option<Swapped>,
    ) -> Result<(), Problem> {
        let memory = &self.hand_over.memory;
        let confirmed = memory.confirm(&self.key, &wanted.id);
        let is_new = confirmed.map_err(Problem::memory)?;
        if !is_new && swapped.is_none() {
            return Ok(());
        }
        let window = swapped.and_then(|how| how.window);
        let window_ms = window.map(|window| window.as_secs_f64() * 1000.0);
        let swap = swapped.map_or(SwapKind::Found, |how| how.kind);
        self.status.swap = Some(swap);
        self.status.window_ms = window_ms;
        self.audience.say(&Event::Served(GenerationServed {
            server: &self.server.url,
            name: &wanted.name,
            generation: wanted.id.number,
            path: &wanted.aim.path,
            swap,
            window_ms,
        }));
        Ok(())
    }
}

/// The result of a step.
#[derive(Debug)]
enum StepDone {
    /// The step was done; nothing follows from it.
    Done,
    /// The generation may be served.
    Accepted,
    /// The generation must not be served.
    Rejected,
    /// The generation was swapped in, and should be listed now.
    Swapped(Swapped),
}

impl WantedGeneration {
    fn adapter<'a>(&'a self, name: &'a str) -> NamedAdapter<'a> {
        NamedAdapter {
            name,
            path: &self.aim.path,
        }
    }
}
