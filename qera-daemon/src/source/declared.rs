//! What a shard's header declares of the model that it was recorded in, taken together with what
//! other shards declared.

use std::collections::BTreeSet;

use crate::host::second_moment::SecondMomentKind;
use crate::settings::weights::{Selection, Wanted};
use crate::source::metadata::{
    class, declared, linears, refused_linears, refused_shares, task_type,
};
use crate::source::naming::{Naming, RecordedModule, find};
use crate::source::refusal::Reason;
use crate::source::shard::{MASK, ShardHeader};
use crate::weights::recording::Recording;
use crate::weights::sites::{Clash, Shares, Sites};
use crate::weights::{Model, Weights};

/// What declarations are held against while nothing is fixed yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Declaring<'a> {
    /// The model; without one, every module is known.
    pub(crate) model: Option<&'a Model>,
    /// Which modules are excluded.
    pub(crate) selection: &'a Selection,
}

impl Declaring<'_> {
    /// Adds to a recording what a header says of the model; the recording has the names already.
    ///
    /// # Errors
    /// The first thing that does not fit, or contradicts an earlier shard; the recording is then
    /// of no use.
    pub(crate) fn record(
        &self,
        header: &ShardHeader,
        recording: &mut Recording,
    ) -> Result<(), Reason> {
        self.check_names(header, recording)?;
        list_linears(header, self.model, recording)?;
        let keys = recorded_modules(header).map(|of| of.name);
        let shared = declared(header)?.into_iter().flatten();
        for name in keys.chain(shared) {
            let module = recording.name(&name);
            if self.may_be_linear(&module) {
                recording.linears.see(module);
            }
        }
        name_class(header, recording)
    }

    /// Whether a module that is named could be a layer: others say nothing of what is linear. It
    /// need not be selected: others may read what it reads.
    fn may_be_linear(&self, module: &str) -> bool {
        let shape = self.model.map(|model| model.shape(module));
        self.selection.wanted(module) != Wanted::LeftOutByDefault
            && shape.is_none_or(|shape| shape.is_some_and(|shape| shape.len() == 2))
    }

    /// Whether every key is a module of the model.
    fn check_names(&self, header: &ShardHeader, recording: &Recording) -> Result<(), Reason> {
        let Some(model) = self.model else {
            return Ok(());
        };
        let is_unknown = |of: &RecordedModule| {
            let module = recording.name(&of.name);
            let excluded = self.selection.excludes(&of.name) || self.selection.excludes(&module);
            model.shape(&module).is_none() && !excluded
        };
        let Some(unknown) = recorded_modules(header).find(is_unknown) else {
            return Ok(());
        };
        let modules: Vec<_> = recorded_modules(header).collect();
        if let Naming::Ambiguous(maps) = find(model, self.selection, &modules) {
            let rules = maps.iter().flat_map(|map| map.rules());
            return Err(Reason::AmbiguousNames {
                options: rules.map(|rule| format!("--map '{rule}'")).collect(),
            });
        }
        Err(Reason::UnknownModule { key: unknown.name })
    }
}

/// The modules that a header has rows of, with the width of each.
pub(crate) fn recorded_modules(header: &ShardHeader) -> impl Iterator<Item = RecordedModule> {
    let rows = header.claims().iter().filter(|c| !c.key.ends_with(MASK));
    rows.map(|claim| RecordedModule {
        name: claim.key.clone(),
        in_features: claim.shape.last().copied().unwrap_or_default(),
    })
}

/// Takes what the shard lists as linear layers.
///
/// # Errors
/// One whose weight has another shape, or that another shard listed otherwise.
fn list_linears(
    header: &ShardHeader,
    model: Option<&Model>,
    recording: &mut Recording,
) -> Result<(), Reason> {
    for of in linears(header)? {
        let module = recording.name(&of.name);
        let shape = model.and_then(|model| model.shape(&module));
        let stored = of.linear.stored_shape();
        if let Some(shape) = shape.filter(|shape| **shape != stored) {
            return Err(refused_linears(
                header,
                format!(
                    "'{}' would be stored as {stored:?}, its weight has shape {shape:?}",
                    of.name
                ),
            ));
        }
        if let Some(before) = recording.linears.list(module, of.linear) {
            return Err(refused_linears(
                header,
                format!(
                    "'{}' is {:?} here, and {:?} in another shard",
                    of.name, of.linear, before
                ),
            ));
        }
    }
    Ok(())
}

fn name_class(header: &ShardHeader, recording: &mut Recording) -> Result<(), Reason> {
    let task_type = task_type(header)?;
    let Some(found) = class(header) else {
        recording.task_type = recording.task_type.take().or(task_type.map(str::to_owned));
        return Ok(());
    };
    if let Some(expected) = recording.class.as_ref().filter(|of| *of != found) {
        return Err(Reason::OtherClass {
            found: found.to_owned(),
            expected: expected.clone(),
        });
    }
    recording.class = Some(found.to_owned());
    recording.task_type = task_type.map(str::to_owned).or(recording.task_type.take());
    Ok(())
}

/// Where there is no checkpoint: makes a site for each selected module of the shard whose input is
/// not known yet.
pub(crate) fn grow(header: &ShardHeader, selection: &Selection, sites: &mut Sites) {
    for claim in header.claims() {
        if let [.., width] = claim.shape[..]
            && claim.shape.len() > 1
            && width > 0
            && !claim.key.ends_with(MASK)
            && selection.selects(&claim.key)
        {
            sites.ensure(&claim.key, width);
        }
    }
}

/// Adds to `shares` what the shard's metadata `qera.shares` declares: a JSON list of lists of
/// module paths, each list naming modules that read the same input. Only admitted shards are asked.
///
/// # Errors
/// When it cannot be read, overlaps a different group that an earlier shard declared, or joins
/// layers of different in_features; `shares` is then unchanged.
pub(crate) fn declared_shares(
    header: &ShardHeader,
    weights: Option<&Weights>,
    recording: &Recording,
    shares: &mut Shares,
) -> Result<(), Reason> {
    let refuse = |problem| refused_shares(header, problem);
    let mut merged = shares.clone();
    for group in declared_groups(header, recording)? {
        merged.join(&group).map_err(|Clash { first, second }| {
            refuse(format!(
                "joins '{first}' and '{second}', which belong to different groups of other shards"
            ))
        })?;
    }
    if merged == *shares {
        return Ok(());
    }
    if let Some(weights) = weights {
        // Only whether they can be joined is asked.
        let sites = weights.join(&merged, SecondMomentKind::Diagonal);
        sites.map_err(|e| refuse(e.to_string()))?;
    }
    *shares = merged;
    Ok(())
}

/// The groups that a shard declares, by the checkpoint's names.
///
/// # Errors
/// What is no list of lists of names.
pub(crate) fn declared_groups(
    header: &ShardHeader,
    recording: &Recording,
) -> Result<Vec<BTreeSet<String>>, Reason> {
    let groups = declared(header)?.into_iter();
    let renamed = groups.map(|group| group.iter().map(|name| recording.name(name)).collect());
    Ok(renamed.collect())
}
