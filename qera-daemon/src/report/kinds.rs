//! Layers by kind and block: `model.layers.*.mlp.up_proj` is a kind, the number in the place of the
//! star says the block.

use crate::report::generation::{BeforeAndAfter, ErrorKind, ReportedLayer, mean};
use crate::settings::dotted::{is_number, starred};

/// Layers whose names differ only in numbers, in the order of these numbers.
#[derive(Debug)]
pub(crate) struct ReportedKind<'a> {
    /// The kind's name, with a star for each number.
    pub(crate) name: String,
    /// The layers of this kind.
    pub(crate) layers: Vec<&'a ReportedLayer>,
}

/// The smallest and the largest of several numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LeastAndMost {
    /// The smallest.
    pub(crate) least: f64,
    /// The largest.
    pub(crate) most: f64,
}

/// Groups layers by kind. Kinds are in the order in which layers of the first block are named.
#[must_use]
pub(crate) fn kinds(layers: &[ReportedLayer]) -> Vec<ReportedKind<'_>> {
    let mut kinds: Vec<ReportedKind<'_>> = Vec::new();
    for layer in in_order(layers) {
        let name = starred(&layer.name);
        match kinds.iter_mut().find(|kind| kind.name == name) {
            Some(kind) => kind.layers.push(layer),
            None => kinds.push(ReportedKind {
                name,
                layers: vec![layer],
            }),
        }
    }
    kinds
}

/// The layers in the order in which a person counts: block 2 before block 10.
#[must_use]
pub(crate) fn in_order(layers: &[ReportedLayer]) -> Vec<&ReportedLayer> {
    let mut all: Vec<_> = layers.iter().map(|of| (order(&of.name), of)).collect();
    all.sort_by(|(left, _), (right, _)| left.cmp(right));
    all.into_iter().map(|(_, layer)| layer).collect()
}

/// The parts of a name, with numbers by their value.
fn order(name: &str) -> Vec<NamePart<'_>> {
    let part = |part| match is_number(part) {
        true => NamePart::Number(part.parse().unwrap_or(u64::MAX)),
        false => NamePart::Word(part),
    };
    name.split('.').map(part).collect()
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NamePart<'a> {
    Number(u64),
    Word(&'a str),
}

/// The block of a layer: the first number in its name; `None` where there is none.
#[must_use]
pub(crate) fn block(name: &str) -> Option<&str> {
    name.split('.').find(|part| is_number(part))
}

impl ReportedKind<'_> {
    /// The mean of the layers' errors; `None` where none was solved. Errors of the window, or of
    /// an imatrix, count where there are no others.
    #[must_use]
    pub(crate) fn relative(&self) -> Option<BeforeAndAfter> {
        let layers = self.layers.iter().copied();
        mean_errors(layers)
    }

    /// The mean share of the error that the corrections leave on held-out rows.
    #[must_use]
    pub(crate) fn held_out(&self) -> Option<f64> {
        let shares = self.layers.iter().filter_map(|layer| layer.held_out());
        mean(shares.map(|share| share.left))
    }

    /// The range of the layers' shrinkage.
    #[must_use]
    pub(crate) fn shrinkage(&self) -> Option<LeastAndMost> {
        extent(self.layers.iter().filter_map(|layer| layer.shrinkage))
    }

    /// The range of ranks that the layers use.
    #[must_use]
    pub(crate) fn rank(&self) -> Option<LeastAndMost> {
        let solved = self.layers.iter().filter(|layer| layer.is_solved());
        extent(solved.map(|layer| layer.rank_used as f64))
    }
}

/// The mean of layers' relative errors, each layer counting as one. Errors of the window, or
/// of an imatrix, count where there are no others.
#[must_use]
pub(crate) fn mean_errors<'a>(
    layers: impl Iterator<Item = &'a ReportedLayer> + Clone,
) -> Option<BeforeAndAfter> {
    let of = |kind| {
        let errors = layers.clone().filter_map(ReportedLayer::relative);
        let errors = errors.filter(move |of| of.kind == kind);
        Some(BeforeAndAfter {
            without: mean(errors.clone().map(|of| of.without))?,
            with: mean(errors.map(|of| of.with))?,
            kind,
        })
    };
    ErrorKind::ALL.into_iter().find_map(of)
}

fn extent(of: impl Iterator<Item = f64>) -> Option<LeastAndMost> {
    of.fold(None, |found, value| {
        let LeastAndMost { least, most } = found.unwrap_or(LeastAndMost {
            least: value,
            most: value,
        });
        Some(LeastAndMost {
            least: least.min(value),
            most: most.max(value),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_as_a_person_counts() {
        let layer = |name: &str| -> ReportedLayer {
            serde_json::from_value(serde_json::json!({ "name": name })).unwrap()
        };
        let names = ["h.10.q", "h.2.q", "lm_head", "h.2.k", "h.10.k"];
        let layers: Vec<_> = names.into_iter().map(layer).collect();
        let kinds = kinds(&layers);
        let found: Vec<_> = kinds
            .iter()
            .map(|kind| {
                let blocks = kind.layers.iter().map(|of| block(&of.name).unwrap_or("-"));
                format!("{}: {}", kind.name, blocks.collect::<Vec<_>>().join(" "))
            })
            .collect();
        assert_eq!(found, ["h.*.k: 2 10", "h.*.q: 2 10", "lm_head: -"]);
        assert_eq!(kinds[0].relative(), None);
    }
}
