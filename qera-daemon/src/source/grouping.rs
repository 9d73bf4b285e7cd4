//! Which modules share an input, decided once from the shards that are there when a state begins.

use crate::error::Fatal;
use crate::host::second_moment::SecondMomentKind;
use crate::settings::Settings;
use crate::source::admission::{Admission, Admitted, declared_shares, grow};
use crate::source::refusal::Refusal;
use crate::source::shard::ShardHeader;
use crate::weights::Weights;
use crate::weights::sites::{Shares, Sites};

/// The sites, and which shards fit them.
#[derive(Debug)]
pub(crate) struct Grouping {
    /// The sites.
    pub(crate) sites: Sites,
    /// Shards whose headers fit, in their order.
    pub(crate) admitted: Vec<Admitted>,
    /// The others.
    pub(crate) refused: Vec<RefusedShard>,
}

/// A shard that was set aside.
#[derive(Debug)]
pub(crate) struct RefusedShard {
    /// What it claims to hold.
    pub(crate) header: ShardHeader,
    /// Why it was refused.
    pub(crate) refusal: Refusal,
}

/// A header, by its place, that does not fit.
struct Misfit {
    index: usize,
    refusal: Refusal,
}

/// Groups the selected layers (or, without a checkpoint, the shards' modules) into sites by names
/// and by what the shards declare. What a refused shard declares does not count: whenever shards
/// are refused, the rest is judged again without them.
///
/// # Errors
/// [`Fatal::Checkpoint`] for layers that share an input and differ in in_features.
pub(crate) fn group(
    settings: &Settings,
    weights: Option<&Weights>,
    mut headers: Vec<ShardHeader>,
) -> Result<Grouping, Fatal> {
    let mut refused = Vec::new();
    let layers = weights.map_or(&[][..], Weights::layers);
    loop {
        let mut shares = Shares::default();
        let mut clashes = Vec::new();
        for (index, header) in headers.iter().enumerate() {
            if let Err(refusal) = declared_shares(header, layers, &mut shares) {
                clashes.push(Misfit { index, refusal });
            }
        }
        let sites = sites(settings, weights, &shares, &headers)?;
        let admission = Admission {
            weights,
            selection: &settings.weights.selection,
            sites: &sites,
        };
        let mut admitted = Vec::new();
        let mut refusals = Vec::new();
        for (index, header) in headers.iter().enumerate() {
            // Without a checkpoint a shard is judged by its own word here, and by those accepted
            // before it later.
            let own = weights.is_none().then(|| {
                let mut own = sites.without_sites();
                grow(header, &settings.weights.selection, &mut own);
                own
            });
            let admission = Admission {
                sites: own.as_ref().unwrap_or(&sites),
                ..admission.clone()
            };
            match admission.admit(header) {
                Ok(shard) => admitted.push(shard),
                Err(refusal) => refusals.push(Misfit { index, refusal }),
            }
        }
        // A clash is one's own fault only when the other side is admitted.
        let refusals = if refusals.is_empty() {
            clashes
        } else {
            refusals
        };
        if refusals.is_empty() {
            return Ok(Grouping {
                sites,
                admitted,
                refused,
            });
        }
        for Misfit { index, refusal } in refusals.into_iter().rev() {
            let header = headers.remove(index);
            refused.push(RefusedShard { header, refusal });
        }
    }
}

fn sites(
    settings: &Settings,
    weights: Option<&Weights>,
    shares: &Shares,
    headers: &[ShardHeader],
) -> Result<Sites, Fatal> {
    let kind = SecondMomentKind::for_method(settings.solve.method.needs_r());
    let Some(weights) = weights else {
        let mut sites = Sites::saved(&[], shares, kind);
        headers
            .iter()
            .for_each(|header| grow(header, &settings.weights.selection, &mut sites));
        return Ok(sites);
    };
    weights.sites(shares, kind)
}
