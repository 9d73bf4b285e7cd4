//! Decides, by the shards that are there when a state begins, what then stays fixed: how their
//! names relate to the checkpoint's, which modules are linear layers, and which of these share an
//! input.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::Fatal;
use crate::host::second_moment::SecondMomentKind;
use crate::settings::Settings;
use crate::settings::name_map::NameMap;
use crate::settings::statistics::Statistics;
use crate::source::admission::{Admission, Admitted};
use crate::source::declared::{Declaring, declared_shares, grow, recorded_modules};
use crate::source::metadata::{declared, linears};
use crate::source::naming::{Naming, find};
use crate::source::refusal::{Reason, Refusal};
use crate::source::shard::ShardHeader;
use crate::weights::Weights;
use crate::weights::opening::Model;
use crate::weights::recording::Recording;
use crate::weights::sites::{Shares, Sites};
use crate::weights::sketched::SketchRecord;

/// The layers, the sites, and the shards that fit them.
#[derive(Debug)]
pub(crate) struct Grouping {
    /// The layers; `None` without a checkpoint.
    pub(crate) weights: Option<Arc<Weights>>,
    /// What the shards say about the recorded model.
    pub(crate) recording: Recording,
    /// The sites.
    pub(crate) sites: Sites,
    /// Shards whose headers fit, in their order.
    pub(crate) admitted: Vec<Admitted>,
    /// The other shards.
    pub(crate) refused: Vec<RefusedShard>,
}

/// A shard that was set aside.
#[derive(Debug)]
pub(crate) struct RefusedShard {
    /// The shard's header.
    pub(crate) header: ShardHeader,
    /// Why it was refused.
    pub(crate) refusal: Refusal,
}

/// A header that does not fit, by its index.
struct Misfit {
    index: usize,
    reason: Reason,
}

/// The result of comparing the headers with each other.
enum Round {
    Fits(Box<Grouping>),
    /// These headers do not fit.
    Without(Vec<Misfit>),
}

/// Groups the layers (or, without a checkpoint, the shards' modules) into sites. Declarations of a
/// refused shard do not count: whenever shards are refused, the rest is judged again without them.
/// Without a checkpoint, shards whose inputs `holds` refuses are refused, too.
///
/// # Errors
/// [`Fatal::Checkpoint`] for a weight that cannot serve or for layers that cannot share an input,
/// [`Fatal::Usage`] for an impossible selection.
pub(crate) fn group(
    settings: &Settings,
    model: Option<&Model>,
    mut headers: Vec<ShardHeader>,
    holds: impl Fn(&Sites) -> Result<(), Reason>,
) -> Result<Grouping, Fatal> {
    check_map(settings, &headers)?;
    let mut refused = Vec::new();
    loop {
        let round = match judge(settings, model, &headers)? {
            Round::Fits(grouping) if model.is_none() => {
                match too_large(settings, &grouping.sites, &headers, &holds) {
                    misfits if misfits.is_empty() => Round::Fits(grouping),
                    misfits => Round::Without(misfits),
                }
            }
            round => round,
        };
        match round {
            Round::Fits(grouping) => {
                return Ok(Grouping {
                    refused,
                    ..*grouping
                });
            }
            Round::Without(misfits) => {
                for Misfit { index, reason } in misfits.into_iter().rev() {
                    let header = headers.remove(index);
                    let shard = header.name.clone();
                    refused.push(RefusedShard {
                        refusal: Refusal { shard, reason },
                        header,
                    });
                }
            }
        }
    }
}

/// The shards whose inputs cannot be gathered in addition to those of earlier shards.
fn too_large(
    settings: &Settings,
    all: &Sites,
    headers: &[ShardHeader],
    holds: impl Fn(&Sites) -> Result<(), Reason>,
) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    if holds(all).is_ok() {
        return misfits;
    }
    let mut sites = all.without_sites();
    for (index, header) in headers.iter().enumerate() {
        let mut grown = sites.clone();
        grow(header, &settings.weights.selection, &mut grown);
        match holds(&grown) {
            Ok(()) => sites = grown,
            Err(reason) => misfits.push(Misfit { index, reason }),
        }
    }
    misfits
}

/// Refuses a `--map` rule that matches nothing, since it was meant for another name. Names of
/// layers that only share an input or are listed count, too.
fn check_map(settings: &Settings, headers: &[ShardHeader]) -> Result<(), Fatal> {
    let modules = headers.iter().flat_map(recorded_modules);
    let keys: Vec<String> = modules.map(|of| of.name).collect();
    // Metadata that cannot be read are refused with their shard.
    let shared = headers.iter().filter_map(|header| declared(header).ok());
    let listed = headers.iter().filter_map(|header| linears(header).ok());
    let told: BTreeSet<String> = (shared.flatten().flatten())
        .chain(listed.flatten().map(|of| of.name))
        .collect();
    let names = keys.iter().chain(&told).map(String::as_str);
    let map = settings.weights.map.as_ref();
    let Some(first) = keys.first() else {
        return Ok(());
    };
    match map.and_then(|map| map.idle_rule(names)) {
        None => Ok(()),
        Some(rule) => Err(Fatal::Usage(format!(
            "--map '{rule}': meets no name of the shards ('{first}' first)"
        ))),
    }
}

fn judge(
    settings: &Settings,
    model: Option<&Model>,
    headers: &[ShardHeader],
) -> Result<Round, Fatal> {
    let names = model.map(|model| names_of(settings, model, headers));
    let mut recording = Recording::under(names);
    let declaring = Declaring {
        model,
        selection: &settings.weights.selection,
    };
    let (mut misfits, mut clashes) = (Vec::new(), Vec::new());
    for (index, header) in headers.iter().enumerate() {
        match declaring.record(header, &mut recording) {
            Ok(()) => {}
            Err(reason) if reason.is_clash() => clashes.push(Misfit { index, reason }),
            Err(reason) => misfits.push(Misfit { index, reason }),
        }
    }
    if let Some(model) = model.filter(|_| misfits.is_empty())
        && !model.serving_is_known(&recording)
    {
        misfits.extend(headers.iter().enumerate().filter_map(|(index, header)| {
            let key = recorded_modules(header).next()?.name;
            let module = recording.name(&key);
            let reason = Reason::UnknownClass { key, module };
            Some(Misfit { index, reason })
        }));
    }
    if !misfits.is_empty() {
        return Ok(Round::Without(misfits));
    }
    let weights = model.map(|model| model.select(settings, &recording));
    let weights = weights.transpose()?.map(Arc::new);
    join(settings, weights, recording, headers, clashes)
}

/// Groups what the headers name into sites, and compares every header with the result.
fn join(
    settings: &Settings,
    weights: Option<Arc<Weights>>,
    recording: Recording,
    headers: &[ShardHeader],
    mut clashes: Vec<Misfit>,
) -> Result<Round, Fatal> {
    let of = weights.as_deref();
    let mut shares = Shares::default();
    let clashed: BTreeSet<usize> = clashes.iter().map(|misfit| misfit.index).collect();
    let others = || {
        let all = headers.iter().enumerate();
        all.filter(|(index, _)| !clashed.contains(index))
    };
    for (index, header) in others() {
        if let Err(reason) = declared_shares(header, of, &recording, &mut shares) {
            clashes.push(Misfit { index, reason });
        }
    }
    let sites = sites(settings, of, &shares, headers)?;
    let admission = Admission {
        weights: of,
        selection: &settings.weights.selection,
        sites: &sites,
        recording: &recording,
        fixed: false,
        method: settings.solve.method,
    };
    let mut admitted = Vec::new();
    let mut misfits = Vec::new();
    for (index, header) in others() {
        // Without a checkpoint a shard is judged here by its own statements, and later by those of
        // accepted shards.
        let own = of.is_none().then(|| {
            let mut own = sites.without_sites();
            grow(header, &settings.weights.selection, &mut own);
            own
        });
        let admission = Admission {
            sites: own.as_ref().unwrap_or(&sites),
            ..admission.clone()
        };
        match admission.check(header) {
            Ok(shard) => admitted.push(shard),
            Err(reason) => misfits.push(Misfit { index, reason }),
        }
    }
    // A clash counts against a shard only where the other side is admitted.
    let mut misfits = if misfits.is_empty() { clashes } else { misfits };
    misfits.sort_by_key(|misfit| misfit.index);
    if !misfits.is_empty() {
        return Ok(Round::Without(misfits));
    }
    Ok(Round::Fits(Box::new(Grouping {
        weights,
        recording,
        sites,
        admitted,
        refused: Vec::new(),
    })))
}

/// How the shards' names relate to the checkpoint's: as `--map` says, or else as most shards show
/// whose names fit in one way only. If two ways are shown by as many shards, the first one counts.
fn names_of(settings: &Settings, model: &Model, headers: &[ShardHeader]) -> NameMap {
    if let Some(given) = &settings.weights.map {
        return given.clone();
    }
    let selection = &settings.weights.selection;
    let mut shown: Vec<ShownMap> = Vec::new();
    for header in headers {
        let modules: Vec<_> = recorded_modules(header).collect();
        let Naming::Found(map) = find(model, selection, &modules) else {
            continue;
        };
        match shown.iter_mut().find(|known| known.map == map) {
            Some(known) => known.shards += 1,
            None => shown.push(ShownMap { map, shards: 1 }),
        }
    }
    // Of several equal maps the last would be taken; reversing the order makes it the first.
    let most = shown.into_iter().rev().max_by_key(|known| known.shards);
    most.map(|known| known.map).unwrap_or_default()
}

/// A map, and the number of shards that show it.
struct ShownMap {
    map: NameMap,
    shards: usize,
}

fn sites(
    settings: &Settings,
    weights: Option<&Weights>,
    shares: &Shares,
    headers: &[ShardHeader],
) -> Result<Sites, Fatal> {
    let kind = match settings.solve.statistics {
        None => SecondMomentKind::for_method(settings.solve.method.needs_r()),
        // Inputs whose sketches would take more gather R.
        Some(Statistics::Full | Statistics::Sketch { .. }) => SecondMomentKind::Packed,
        Some(Statistics::Diagonal) => SecondMomentKind::Diagonal,
    };
    let Some(weights) = weights else {
        let mut sites = Sites::saved(&[], shares, kind);
        headers
            .iter()
            .for_each(|header| grow(header, &settings.weights.selection, &mut sites));
        return Ok(sites);
    };
    let sites = weights.sites(shares, kind)?;
    Ok(match settings.solve.statistics {
        Some(Statistics::Sketch { rows }) => {
            sites.sketched(SketchRecord::new(rows, weights), weights.layers())
        }
        _ => sites,
    })
}
