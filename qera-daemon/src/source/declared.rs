//! What a shard's header declares of the recorded model, joined with the declarations of other
//! shards.

use std::collections::BTreeSet;

use crate::host::second_moment::SecondMomentKind;
use crate::settings::weights::{Selection, Wanted};
use crate::source::metadata::{
    class, declared, linears, refused_linears, refused_shares, task_type,
};
use crate::source::naming::{Naming, RecordedModule, find, has_family};
use crate::source::refusal::{Reason, WIDEST};
use crate::source::shard::ShardHeader;
use crate::source::tensor_role::{TensorRole, module_of, role_of};
use crate::weights::Weights;
use crate::weights::gguf::family::is_gguf_name;
use crate::weights::opening::Model;
use crate::weights::recording::Recording;
use crate::weights::sites::{Clash, Shares, Sites};

/// What declarations are compared with while nothing is fixed yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Declaring<'a> {
    /// The model; without one, every module is known.
    pub(crate) model: Option<&'a Model>,
    /// Which modules are excluded.
    pub(crate) selection: &'a Selection,
}

impl Declaring<'_> {
    /// Adds a header's statements on the model to a recording that has the names already.
    ///
    /// # Errors
    /// The first statement that does not fit, or contradicts an earlier shard. The recording is
    /// unchanged then.
    pub(crate) fn record(
        &self,
        header: &ShardHeader,
        recording: &mut Recording,
    ) -> Result<(), Reason> {
        let mut learnt = recording.clone();
        self.check_names(header, &learnt)?;
        list_linears(header, self.model, &mut learnt)?;
        let keys = recorded_modules(header).map(|of| of.name);
        let shared = declared(header)?.into_iter().flatten();
        for name in keys.chain(shared) {
            let module = learnt.learn(&name);
            if self.may_be_linear(&module) {
                learnt.linears.see(module);
            }
        }
        name_class(header, &mut learnt)?;
        *recording = learnt;
        Ok(())
    }

    /// Whether a named module could be a layer; statements on other modules say nothing of what is
    /// linear. The module need not be selected, since others may read the same input.
    fn may_be_linear(&self, module: &str) -> bool {
        let shape = self.model.map(|model| model.shape(module));
        self.selection.wanted(module) != Wanted::LeftOutByDefault
            && shape.is_none_or(|shape| shape.is_some_and(|shape| shape.len() == 2))
    }

    /// Checks that rows of these widths are possible, where there is no checkpoint to tell.
    fn check_widths(&self, header: &ShardHeader) -> Result<(), Reason> {
        let claims = header.claims().iter();
        let rows = claims.filter(|claim| {
            claim.shape.len() > 1 && matches!(role_of(&claim.key), TensorRole::Rows(_))
        });
        for claim in rows.filter(|claim| !self.selection.excludes(&claim.key)) {
            let key = claim.key.clone();
            match claim.shape.last() {
                Some(0) => return Err(Reason::NoWidth { key }),
                Some(&in_features) if in_features > WIDEST => {
                    return Err(Reason::TooWide { key, in_features });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks that every key is a module of the model.
    fn check_names(&self, header: &ShardHeader, recording: &Recording) -> Result<(), Reason> {
        let Some(model) = self.model else {
            return self.check_widths(header);
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
        let key = unknown.name;
        Err(match is_gguf_name(&key) && !has_family(model) {
            true => Reason::NoFamily { key },
            false => Reason::UnknownModule { key },
        })
    }
}

/// The modules of which a header has rows, or a sum over rows, with their widths.
pub(crate) fn recorded_modules(header: &ShardHeader) -> impl Iterator<Item = RecordedModule> {
    header.claims().iter().filter_map(module_of)
}

/// Adds the linear layers that the shard lists.
///
/// # Errors
/// A layer whose weight has another shape, or that another shard describes otherwise.
fn list_linears(
    header: &ShardHeader,
    model: Option<&Model>,
    recording: &mut Recording,
) -> Result<(), Reason> {
    for of in linears(header)? {
        let refuse = |problem: String| {
            let name = &of.name;
            Err(refused_linears(header, format!("'{name}' is {problem}")))
        };
        let module = recording.learn(&of.name);
        let mut linear = of.linear;
        if let Some(shape) = model.and_then(|model| model.shape(&module)) {
            match linear.lying_as(shape) {
                Some(lying) => linear = lying,
                None => return refuse(format!("{linear}, and its weight has shape {shape:?}")),
            }
        }
        let known = model.and_then(|model| model.architectures().is_transposed(&module));
        if let (Some(said), Some(known)) = (linear.transposed, known)
            && said != known
        {
            return refuse(format!(
                "{linear}, and config.json's model_type says the contrary"
            ));
        }
        if let Some(expected) = recording.linears.list(module, linear) {
            return Err(Reason::OtherLinear {
                module: of.name,
                found: linear,
                expected,
            });
        }
    }
    Ok(())
}

fn name_class(header: &ShardHeader, recording: &mut Recording) -> Result<(), Reason> {
    check_class(header, recording)?;
    if let Some(found) = class(header)? {
        recording.class = Some(found.to_owned());
    }
    if let Some(found) = task_type(header)? {
        recording.task_type = Some(found.to_owned());
    }
    Ok(())
}

/// Checks that the shard's statement on the model's class agrees with earlier ones.
///
/// # Errors
/// Another class or task than earlier shards name.
pub(crate) fn check_class(header: &ShardHeader, recording: &Recording) -> Result<(), Reason> {
    let words = [
        ("qera.class", class(header)?, &recording.class),
        ("qera.task_type", task_type(header)?, &recording.task_type),
    ];
    for (key, found, known) in words {
        if let (Some(found), Some(expected)) = (found, known)
            && found != expected
        {
            return Err(Reason::OtherClass {
                key,
                found: found.to_owned(),
                expected: expected.clone(),
            });
        }
    }
    Ok(())
}

/// Makes, where there is no checkpoint, a site for each selected module of the shard whose input is
/// not known yet.
pub(crate) fn grow(header: &ShardHeader, selection: &Selection, sites: &mut Sites) {
    for claim in header.claims() {
        if let Some(RecordedModule { name, in_features }) = module_of(claim)
            && (claim.shape.len() > 1 || name != claim.key)
            && (1..=WIDEST).contains(&in_features)
            && selection.selects(&name)
        {
            sites.ensure(&name, in_features);
        }
    }
}

/// Adds to `shares` what the shard's metadata `qera.shares` declares: a JSON list of lists of
/// module paths, each list naming modules that read the same input. Call this for admitted shards
/// only.
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
        // Only whether they can be joined matters here.
        let sites = weights.join(&merged, SecondMomentKind::Diagonal);
        sites.map_err(|e| refuse(e.to_string()))?;
    }
    *shares = merged;
    Ok(())
}

/// The groups that a shard declares, under the checkpoint's names.
///
/// # Errors
/// The metadata is no list of lists of names.
pub(crate) fn declared_groups(
    header: &ShardHeader,
    recording: &Recording,
) -> Result<Vec<BTreeSet<String>>, Reason> {
    let groups = declared(header)?.into_iter();
    let renamed = groups.map(|group| group.iter().map(|name| recording.name(name)).collect());
    Ok(renamed.collect())
}
