//! An imatrix in the place of rows: which entry belongs to which layer, and what then stands for R
//! of a site.
//!
//! llama.cpp sums x^2 for each channel of a weight's input. Sums over counts are E[x^2], the
//! diagonal of R; nothing else of R is known.

use std::path::Path;

use crate::calibrate::imatrix_files::{ImatrixFiles, ImatrixRecord, refuse};
use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::formats::imatrix::ImatrixEntry;
use crate::weights::Weights;
use crate::weights::layers::Layer;
use crate::weights::sites::{Site, Sites};

/// How closely the E[x^2] of weights that read the same input must agree. They agree as far as sums
/// in f32 do; those of different inputs do not.
const AGREE: f64 = 1e-2;
/// A channel below this share of the largest one counts as zero.
const NOTHING: f64 = 1e-9;

/// Statistics from an imatrix that replace the rows of a site, and the layers they apply to.
#[derive(Debug)]
pub(crate) struct GivenSite {
    /// The site, with those of its layers that have an entry.
    pub(crate) site: Site,
    /// E[x^2], without rows.
    pub(crate) statistics: SiteStatistics,
}

/// What the files say about the sites.
#[derive(Debug)]
pub(crate) struct GivenStatistics {
    /// The files.
    pub(crate) files: Vec<ImatrixRecord>,
    /// For each site; `None` where no layer of it has an entry.
    pub(crate) sites: Vec<Option<GivenSite>>,
    /// For each layer, whether it has an entry that says something.
    pub(crate) layers: Vec<bool>,
    /// Files that belong to the model but have no entry for a selected layer.
    pub(crate) idle: Vec<String>,
}

impl ImatrixFiles {
    /// Looks up what the files say about these sites.
    ///
    /// # Errors
    /// [`Fatal::Imatrix`] for files of another model (no name fits, a width differs), and for
    /// layers that read the same input and have different entries.
    pub(crate) fn statistics(
        &self,
        weights: &Weights,
        sites: &Sites,
    ) -> Result<GivenStatistics, Fatal> {
        let layers = weights.layers();
        let tensors: Vec<String> = layers
            .iter()
            .map(|layer| self.tensor_of(weights, &layer.name))
            .collect();
        self.check_names(weights)?;
        let mut idle = Vec::new();
        for file in &self.files {
            if !file.fits(layers, &tensors)? {
                idle.push(file.record.file.clone());
            }
        }
        let of = Matching {
            files: self,
            layers,
            tensors: &tensors,
        };
        let given = sites.sites.iter().map(|site| of.site(site));
        let given: Vec<Option<GivenSite>> = given.collect::<Result<_, _>>()?;
        let has_entry = (0..layers.len()).map(|layer| {
            let means = of.mean_squares(layer);
            means.is_some_and(|means| is_something(&means))
        });
        Ok(GivenStatistics {
            files: self.files.iter().map(|file| file.record.clone()).collect(),
            layers: has_entry.collect(),
            sites: given,
            idle,
        })
    }
}

/// The entries, and the layers that they belong to.
struct Matching<'a> {
    files: &'a ImatrixFiles,
    layers: &'a [Layer],
    tensors: &'a [String],
}

impl<'a> Matching<'a> {
    /// The imatrix entry of a layer.
    fn entry(&self, layer: usize) -> Option<&'a ImatrixEntry> {
        self.files.sum.entries.get(&self.tensors[layer])
    }

    /// E[x^2] of a layer's input; `None` where nothing was counted.
    fn mean_squares(&self, layer: usize) -> Option<Vec<f64>> {
        self.entry(layer)?.mean_squares(0)
    }

    fn site(&self, site: &Site) -> Result<Option<GivenSite>, Fatal> {
        let means = site.layers.iter();
        let means = means.filter_map(|&layer| Some((layer, self.mean_squares(layer)?)));
        let means: Vec<(usize, Vec<f64>)> = means.collect();
        let layers = means.iter().map(|(layer, _)| *layer).collect();
        let mut means = means.into_iter();
        let Some((first, own)) = means.next() else {
            return Ok(None);
        };
        for (other, means) in means {
            if let Some(channel) = differ(&own, &means) {
                return Err(self.differing(Differing {
                    first,
                    other,
                    channel,
                    means: [own[channel], means[channel]],
                }));
            }
        }
        if !is_something(&own) {
            return Ok(None);
        }
        let count = self.entry(first).and_then(|entry| entry.counts.first());
        let rows = whole(count.copied().unwrap_or_default()).max(1);
        Ok(Some(GivenSite {
            site: Site {
                layers,
                ..site.clone()
            },
            statistics: SiteStatistics::given(own, rows),
        }))
    }

    fn differing(&self, of: Differing) -> Fatal {
        let Differing {
            first,
            other,
            channel,
            means: [a, b],
        } = of;
        let name = |layer: usize| self.layers[layer].name.as_str();
        let paths = self.files.files.iter().map(|file| file.path.display());
        let paths: Vec<String> = paths.map(|path| path.to_string()).collect();
        refuse(
            Path::new(&paths.join(", ")),
            format!(
                "tensors '{}' and '{}' have E[x^2] {a:.4e} and {b:.4e} in channel {channel}, but '{}' and '{}' read one input: an imatrix of another model, or files that do not cover the same tensors",
                self.tensors[first],
                self.tensors[other],
                name(first),
                name(other)
            ),
        )
    }
}

/// Two layers with the same input whose entries differ.
struct Differing {
    first: usize,
    other: usize,
    channel: usize,
    means: [f64; 2],
}

/// Reads a count, which must be a whole number of rows or chunks, at least 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "as near as a u64 comes"
)]
const fn whole(count: f64) -> u64 {
    count.round() as u64
}

/// Whether some mean square is above 0; zeros alone give no correction.
fn is_something(means: &[f64]) -> bool {
    means.iter().any(|mean| *mean > 0.0)
}

/// The first channel in which two inputs differ.
fn differ(a: &[f64], b: &[f64]) -> Option<usize> {
    let largest = a.iter().chain(b).fold(0.0_f64, |most, x| most.max(*x));
    let apart = |(a, b): (&f64, &f64)| (a - b).abs() > AGREE * a.max(*b) + NOTHING * largest;
    a.iter().zip(b).position(apart)
}

impl GivenStatistics {
    /// BLAKE3 over the files; where it is equal, the same statistics stand for rows.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for file in &self.files {
            hasher.update(file.digest.as_bytes());
        }
        format!("blake3:{}", hasher.finalize().to_hex())
    }

    /// Whether any layer has an entry that says something.
    #[must_use]
    pub(crate) fn says_something(&self) -> bool {
        self.layers.contains(&true)
    }

    /// The error that nothing can be solved from the imatrix alone.
    #[must_use]
    pub(crate) fn says_nothing(&self) -> Fatal {
        let files = self.files.iter().map(|of| of.file.as_str());
        refuse(
            Path::new(&files.collect::<Vec<_>>().join(", ")),
            format!(
                "says nothing of any of the {} layers: they have no entry, no row was counted, or every sum is 0; nothing can be solved from it",
                self.layers.len()
            ),
        )
    }

    /// Whether a layer of this site has an entry.
    #[must_use]
    pub(crate) fn has(&self, site: usize) -> bool {
        self.sites.get(site).is_some_and(Option::is_some)
    }
}
