//! An imatrix in the place of rows: its files, which of their entries is which layer's, and what
//! stands for R of a site by them.
//!
//! What llama.cpp sums up is x^2 of each channel of what a weight is multiplied with: sums over
//! counts are E[x^2], the diagonal of R, and nothing else of R is known.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::calibrate::site::SiteStatistics;
use crate::disk;
use crate::error::Fatal;
use crate::formats::imatrix::{CountUnit, Imatrix, ImatrixEntry};
use crate::settings::imatrix::ImatrixSettings;
use crate::weights::Weights;
use crate::weights::layers::Layer;
use crate::weights::sites::{Site, Sites};

/// What is multiplied by several weights has one E[x^2]: their entries agree as far as sums in f32
/// do, and entries of different inputs do not.
const AGREE: f64 = 1e-2;
/// Of the largest channel: less is nothing.
const NOTHING: f64 = 1e-9;

/// The files, as they were given.
#[derive(Debug)]
pub(crate) struct ImatrixFiles {
    files: Vec<ImatrixFile>,
    /// All of them.
    sum: Imatrix,
}

#[derive(Debug)]
struct ImatrixFile {
    path: PathBuf,
    record: ImatrixRecord,
    /// Channels of each entry, for messages that name the file.
    imatrix: Imatrix,
}

/// A file, as manifests and events have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ImatrixRecord {
    /// The path as it was given.
    pub(crate) file: String,
    /// BLAKE3 of its bytes.
    pub(crate) digest: String,
    /// Its entries.
    pub(crate) entries: usize,
    /// What it says it was made of.
    pub(crate) datasets: Vec<String>,
    /// Chunks of text, and tokens of each; 0 where it does not say.
    pub(crate) chunks: u64,
    /// Tokens of a chunk; 0 where it does not say.
    pub(crate) chunk_size: u64,
    /// What its counts are of: `tokens`, or `chunks` in the legacy form.
    pub(crate) counts: &'static str,
}

/// What stands for the rows of a site, and for which of its layers.
#[derive(Debug)]
pub(crate) struct GivenSite {
    /// The site, with those of its layers that have an entry.
    pub(crate) site: Site,
    /// E[x^2], and no row.
    pub(crate) statistics: SiteStatistics,
}

/// What the files say of the sites.
#[derive(Debug)]
pub(crate) struct GivenStatistics {
    /// The files.
    pub(crate) files: Vec<ImatrixRecord>,
    /// By site; none where no layer of it has an entry.
    pub(crate) sites: Vec<Option<GivenSite>>,
    /// By layer: whether it has an entry that says something.
    pub(crate) layers: Vec<bool>,
}

impl ImatrixFiles {
    /// Reads the files and adds them up; `None` where none was given.
    ///
    /// # Errors
    /// [`Fatal::Imatrix`] naming the file that is none, or does not add to those before it.
    pub(crate) fn open(settings: &ImatrixSettings) -> Result<Option<Self>, Fatal> {
        let files = settings.files.iter().map(|path| ImatrixFile::open(path));
        let files: Vec<ImatrixFile> = files.collect::<Result<_, _>>()?;
        let Some((first, others)) = files.split_first() else {
            return Ok(None);
        };
        let mut sum = first.imatrix.clone();
        for file in others {
            let added = sum.add(file.imatrix.clone());
            added.map_err(|error| refuse(&file.path, error.to_string()))?;
        }
        Ok(Some(Self { files, sum }))
    }

    /// What they say of these sites.
    ///
    /// # Errors
    /// [`Fatal::Imatrix`] for one of another model (no name fits, a width differs), and for layers
    /// that read one input and have different entries.
    pub(crate) fn statistics(
        &self,
        weights: &Weights,
        sites: &Sites,
    ) -> Result<GivenStatistics, Fatal> {
        let layers = weights.layers();
        let tensors: Vec<String> = layers
            .iter()
            .map(|layer| self.tensor_of(weights, layer))
            .collect();
        for file in &self.files {
            file.check(layers, &tensors)?;
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
        })
    }

    /// The name of a layer's weight here: that of GGUF, or, of a model that is not listed, its own.
    fn tensor_of(&self, weights: &Weights, layer: &Layer) -> String {
        let listed = weights.family().and_then(|of| of.tensor_of(&layer.name));
        let listed = listed.map(|of| of.tensor);
        let has = |name: &String| self.sum.entries.contains_key(name);
        let own = format!("{}.weight", layer.name);
        match listed {
            Some(listed) if has(&listed) || !has(&own) => listed,
            _ => own,
        }
    }
}

impl ImatrixFile {
    fn open(path: &Path) -> Result<Self, Fatal> {
        let bytes = disk::read(path).map_err(Fatal::io(path, "read the imatrix"))?;
        let imatrix = Imatrix::parse(&bytes).map_err(|error| refuse(path, error.to_string()))?;
        let record = ImatrixRecord {
            file: path.display().to_string(),
            digest: format!("blake3:{}", blake3::hash(&bytes).to_hex()),
            entries: imatrix.entries.len(),
            datasets: imatrix.datasets.clone(),
            chunks: imatrix.chunks,
            chunk_size: imatrix.chunk_size,
            counts: counts_of(imatrix.unit),
        };
        Ok(Self {
            path: path.to_path_buf(),
            record,
            imatrix,
        })
    }

    /// Whether it can be of these layers' model.
    fn check(&self, layers: &[Layer], tensors: &[String]) -> Result<(), Fatal> {
        let mut fits = false;
        for (layer, tensor) in layers.iter().zip(tensors) {
            let Some(entry) = self.imatrix.entries.get(tensor) else {
                continue;
            };
            fits = true;
            let (matrices, channels) = (entry.matrices(), entry.width());
            if matrices != 1 {
                return Err(refuse(
                    &self.path,
                    format!(
                        "tensor '{tensor}' is {matrices} matrices of {channels} channels, the checkpoint's '{}' is one weight: an imatrix of another model",
                        layer.name
                    ),
                ));
            }
            if channels != layer.in_features {
                return Err(refuse(
                    &self.path,
                    format!(
                        "tensor '{tensor}' has {channels} channels, the checkpoint's '{}' has in_features {}: an imatrix of another model",
                        layer.name, layer.in_features
                    ),
                ));
            }
        }
        if fits {
            return Ok(());
        }
        let first = self.imatrix.entries.keys().next();
        let asked = tensors.first();
        Err(refuse(
            &self.path,
            format!(
                "none of its {} entries is of a layer of the checkpoint ('{}' first, where '{}' would be one): an imatrix of another model",
                self.imatrix.entries.len(),
                first.map_or("", String::as_str),
                asked.map_or("", String::as_str),
            ),
        ))
    }
}

/// Entries beside the layers that they belong to.
struct Matching<'a> {
    files: &'a ImatrixFiles,
    layers: &'a [Layer],
    tensors: &'a [String],
}

impl<'a> Matching<'a> {
    /// A layer's entry.
    fn entry(&self, layer: usize) -> Option<&'a ImatrixEntry> {
        self.files.sum.entries.get(&self.tensors[layer])
    }

    /// E[x^2] of a layer's input; none where nothing was counted.
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

/// Two layers of one input whose entries differ.
struct Differing {
    first: usize,
    other: usize,
    channel: usize,
    means: [f64; 2],
}

/// A count, which is a whole number of rows or chunks, at least 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "as near as a u64 comes"
)]
const fn whole(count: f64) -> u64 {
    count.round() as u64
}

/// As a manifest says it.
const fn counts_of(unit: CountUnit) -> &'static str {
    match unit {
        CountUnit::Rows => "tokens",
        CountUnit::RowsInPart => "tokens, in part by chunks",
        CountUnit::Chunks => "chunks",
    }
}

/// Whether a mean square is above 0: of nothing but zeros no correction can be made.
fn is_something(means: &[f64]) -> bool {
    means.iter().any(|mean| *mean > 0.0)
}

/// The first channel in which two inputs are not the same.
fn differ(a: &[f64], b: &[f64]) -> Option<usize> {
    let largest = a.iter().chain(b).fold(0.0_f64, |most, x| most.max(*x));
    let apart = |(a, b): (&f64, &f64)| (a - b).abs() > AGREE * a.max(*b) + NOTHING * largest;
    a.iter().zip(b).position(apart)
}

impl GivenStatistics {
    /// BLAKE3 over the files: what stands for rows is the same where it is.
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

    /// Why nothing can be solved from it alone.
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

/// An imatrix that cannot serve.
fn refuse(path: &Path, reason: String) -> Fatal {
    Fatal::Imatrix {
        path: path.to_path_buf(),
        reason,
    }
}
