//! The forms in which W~ lies in the output folder or will: which are there, which are to be
//! written, and which of them serves the adapter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::disk::{create_folders, exists, is_link, rename, sync, write_json};
use crate::error::Fatal;
use crate::observe::event::Event;
use crate::observe::run_events::{BaseWritten, GgufBaseWritten, PackedBaseWritten};
use crate::publish::base::{Base, BaseRecord, MODEL, RECORD, emit};
use crate::publish::base_files::{BaseFiles, LookedAtBase, files_of, look_at};
use crate::publish::base_worth::{BaseWorth, README};
use crate::publish::companions::Companions;
use crate::publish::generation_files::DamagedFile;
use crate::publish::gguf_base::GgufBase;
use crate::publish::gguf_base::layout::GgufLayout;
use crate::publish::gguf_base::record::GgufRecord;
use crate::publish::layers::PublishedLayers;
use crate::publish::out_folder::OutFolder;
use crate::publish::packed_base::layout::PackedLayout;
use crate::publish::packed_base::record::PackedRecord;
use crate::publish::packed_base::{CONFIG, PackedBase, config_of};
use crate::settings::publish::{BaseForm, GGUF_FILE, PublishSettings};
use crate::weights::Weights;

/// Name of a file that is not whole yet.
const UNFINISHED: &str = "restored";

/// The bases of an output folder.
#[derive(Debug)]
pub(crate) struct Bases {
    wanted: BTreeSet<BaseForm>,
    /// Those that are there, with their records.
    present: BTreeMap<BaseForm, BaseRecord>,
    /// What is packed, where that is to be written.
    layout: Option<PackedLayout>,
    /// What each layer is stored in, where a GGUF is to be written.
    gguf_layout: Option<GgufLayout>,
    /// Files that were gone and are there again.
    restored: Vec<PathBuf>,
    /// What the files of those that are there hold, as far as that is known.
    files: BTreeMap<BaseForm, BaseFiles>,
    /// Files beside the weights that are not what was written.
    damaged: Vec<DamagedFile>,
}

/// What is written before a generation.
#[derive(Debug, Default)]
pub(crate) struct BasesWritten {
    /// What each is worth, where a layer has an error that was measured.
    pub(crate) worth: Vec<BaseWritten>,
    /// The packed one.
    pub(crate) packed: Option<PackedBaseWritten>,
    /// The one that is a GGUF.
    pub(crate) gguf: Option<GgufBaseWritten>,
}

impl BasesWritten {
    /// What is said of them.
    #[must_use]
    pub(crate) fn events(self) -> Vec<Event<'static>> {
        let packed = self.packed.map(Event::PackedBaseWritten);
        let gguf = self.gguf.map(Event::GgufBaseWritten);
        let worth = self.worth.into_iter().map(Event::BaseWritten);
        packed.into_iter().chain(gguf).chain(worth).collect()
    }
}

/// What is known of the files of bases that are there, for every manifest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BaseRecords<'a> {
    /// Of the packed one.
    pub(crate) packed: Option<&'a PackedRecord>,
    /// Of the one that is a GGUF.
    pub(crate) gguf: Option<&'a GgufRecord>,
}

impl Bases {
    /// Those that are asked for or there; none of them is looked into yet.
    ///
    /// # Errors
    /// [`Fatal::Usage`] for a model that a form cannot hold.
    pub(crate) fn of(
        out: &OutFolder,
        settings: &PublishSettings,
        weights: &Weights,
    ) -> Result<Self, Fatal> {
        let mut wanted = settings.bases.clone();
        let is_there = |form: &BaseForm| exists(&out.path.join(form.folder()));
        wanted.extend(BaseForm::ALL.into_iter().filter(is_there));
        let packs = settings.writes(BaseForm::CompressedTensors);
        let layout = packs.then(|| PackedLayout::new(weights)).transpose()?;
        let writes_gguf = settings.writes(BaseForm::Gguf);
        let gguf_layout = writes_gguf.then(|| GgufLayout::new(weights)).transpose()?;
        Ok(Self {
            wanted,
            present: BTreeMap::new(),
            layout,
            gguf_layout,
            restored: Vec::new(),
            files: BTreeMap::new(),
            damaged: Vec::new(),
        })
    }

    /// Whether none is asked for or there.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Whether one is still to be written.
    #[must_use]
    pub(crate) fn are_missing(&self) -> bool {
        self.wanted.len() > self.present.len()
    }

    /// Whether one is still to be written that holds what lies beside the checkpoint's weights.
    #[must_use]
    pub(crate) fn need_companions(&self) -> bool {
        let missing = |form: &&BaseForm| !self.present.contains_key(*form);
        self.wanted.iter().filter(missing).any(has_companions)
    }

    /// One that is there.
    #[must_use]
    pub(crate) fn first_present(&self) -> Option<BaseForm> {
        self.present.keys().next().copied()
    }

    /// Looks into those that are there; what one holds beside what this run knows is known then.
    ///
    /// # Errors
    /// [`Fatal::StateRefused`] when one was made from something else.
    pub(crate) fn look(&mut self, out: &OutFolder, base: &Base) -> Result<Option<Base>, Fatal> {
        for form in self.wanted.clone() {
            if let Some(found) = base.present(out, form)? {
                self.present.insert(form, found);
            }
        }
        let found = self.present.values().next();
        Ok(found.map(|record| record.base.clone()))
    }

    /// Writes again what lay beside the weights of those that are there and is gone. An
    /// engine does not load a model without its configuration.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn restore(
        &mut self,
        out: &OutFolder,
        weights: &Weights,
        companions: &Companions,
    ) -> Result<(), Fatal> {
        for form in self.present.keys().filter(|form| has_companions(form)) {
            let folder = out.path.join(form.folder());
            let mut parts = companions.list()?;
            parts.retain(|part| part != Path::new(README) && !exists(&folder.join(part)));
            for part in parts {
                let unfinished = out.begin("")?;
                let at = unfinished.join(UNFINISHED);
                if *form == BaseForm::CompressedTensors && part == Path::new(CONFIG) {
                    write_json(&at, &config_of(weights, &PackedLayout::new(weights)?)?)?;
                } else {
                    companions.copy_one(&part, &at)?;
                }
                let target = folder.join(&part);
                let parent = target.parent().unwrap_or(&folder);
                create_folders(parent).map_err(Fatal::io(parent, "create"))?;
                rename(&at, &target).map_err(Fatal::io(&target, "rename into place"))?;
                sync(parent)?;
                out.abandon("");
                self.restored.push(target);
            }
        }
        Ok(())
    }

    /// Files that were gone and are there again.
    #[must_use]
    pub(crate) fn restored(&self) -> &[PathBuf] {
        &self.restored
    }

    /// Looks at the files of those that are there by what a manifest says of them. Weights that are
    /// not what was written end the start; what else is not is said.
    ///
    /// # Errors
    /// [`Fatal::StateRefused`] with the file, [`Fatal::Io`] for one that the disk does not give.
    pub(crate) fn check_files(
        &mut self,
        out: &OutFolder,
        said: &BTreeMap<String, BaseFiles>,
    ) -> Result<(), Fatal> {
        for form in self.present.keys() {
            let folder = out.path.join(form.folder());
            let Some(said) = said.get(form.folder()) else {
                continue;
            };
            let LookedAtBase { files, damaged } = look_at(&folder, said)?;
            for of in damaged {
                if [RECORD, MODEL, GGUF_FILE].contains(&of.name.as_str()) {
                    return Err(Fatal::StateRefused {
                        reason: format!(
                            "its {} is damaged: it {}; remove the folder, and it is written again",
                            of.name, of.how
                        ),
                        path: folder,
                    });
                }
                let name = folder.join(&of.name);
                if !self.restored.contains(&name) {
                    let name = name.display().to_string();
                    self.damaged.push(DamagedFile { name, ..of });
                }
            }
            self.files.insert(*form, files);
        }
        Ok(())
    }

    /// Files beside the weights of bases that are not what was written.
    #[must_use]
    pub(crate) fn damaged(&self) -> &[DamagedFile] {
        &self.damaged
    }

    /// What the files of those that are there hold, by their folders; those of which nothing is
    /// known yet are read.
    ///
    /// # Errors
    /// [`Fatal::Io`]; [`Fatal::StateRefused`] for weights that are not those of the record.
    pub(crate) fn files(
        &mut self,
        out: &OutFolder,
    ) -> Result<BTreeMap<&'static str, BaseFiles>, Fatal> {
        for (form, record) in &self.present {
            if self.files.contains_key(form) {
                continue;
            }
            let folder = out.path.join(form.folder());
            let files = files_of(&folder)?;
            if let Some(file) = unlike(record, &files) {
                return Err(Fatal::StateRefused {
                    path: folder,
                    reason: format!(
                        "its {file} is damaged: it is not what {RECORD} was written for; remove the folder, and it is written again"
                    ),
                });
            }
            self.files.insert(*form, files);
        }
        let files = self.files.iter();
        Ok(files
            .map(|(form, of)| (form.folder(), of.clone()))
            .collect())
    }

    /// What serves the adapter: the packed folder, where there is one, else the one of numbers; the
    /// GGUF, beside which there is neither.
    #[must_use]
    pub(crate) fn served(&self, out: &OutFolder) -> Option<PathBuf> {
        let mut forms = [
            BaseForm::CompressedTensors,
            BaseForm::HuggingFace,
            BaseForm::Gguf,
        ]
        .into_iter();
        let form = forms.find(|form| self.wanted.contains(form))?;
        Some(form.served(&out.path))
    }

    /// The folder that holds W~ as numbers.
    #[must_use]
    pub(crate) fn as_numbers(&self, out: &OutFolder) -> Option<PathBuf> {
        let form = BaseForm::HuggingFace;
        let wanted = self.wanted.contains(&form);
        wanted.then(|| out.path.join(form.folder()))
    }

    /// What is known of the files of those that are there.
    #[must_use]
    pub(crate) fn records(&self) -> BaseRecords<'_> {
        let packed = self.present.get(&BaseForm::CompressedTensors);
        let gguf = self.present.get(&BaseForm::Gguf);
        BaseRecords {
            packed: packed.and_then(|of| of.packed.as_ref()),
            gguf: gguf.and_then(|of| of.gguf.as_ref()),
        }
    }

    /// Writes those that are asked for and not there.
    ///
    /// # Errors
    /// [`Fatal::Io`], and [`Fatal::Checkpoint`] for a weight that is NaN or infinite.
    pub(crate) fn write(
        &mut self,
        out: &OutFolder,
        layers: &PublishedLayers<'_>,
        base: &Base,
        companions: &Companions,
    ) -> Result<BasesWritten, Fatal> {
        let mut written = BasesWritten::default();
        if !self.are_missing() {
            return Ok(written);
        }
        let worth = BaseWorth::new(layers);
        let lacks = |of: &Self, form| of.wanted.contains(&form) && !of.present.contains_key(&form);
        if lacks(self, BaseForm::HuggingFace) {
            let folder = emit(out, layers.weights, base, &worth, companions)?;
            let record = BaseRecord::of(base);
            self.present.insert(BaseForm::HuggingFace, record);
            written
                .worth
                .extend(worth.written(folder.display().to_string()));
        }
        if lacks(self, BaseForm::CompressedTensors)
            && let Some(layout) = &self.layout
        {
            let packed = PackedBase {
                weights: layers.weights,
                layout,
                base,
                worth: &worth,
                companions,
            };
            let record = packed.emit(out)?;
            let folder = out.path.join(BaseForm::CompressedTensors.folder());
            let path = folder.display().to_string();
            let packed = record.packed.as_ref();
            written.packed = packed.map(|of| of.written(path.clone()));
            if written.worth.is_empty() {
                written.worth.extend(worth.written(path));
            }
            self.present.insert(BaseForm::CompressedTensors, record);
        }
        if lacks(self, BaseForm::Gguf)
            && let Some(layout) = &self.gguf_layout
        {
            let gguf = GgufBase {
                weights: layers.weights,
                layout,
                base,
                worth: &worth,
            };
            let record = gguf.emit(out)?;
            let path = BaseForm::Gguf.served(&out.path).display().to_string();
            let gguf = record.gguf.as_ref();
            written.gguf = gguf.map(|of| of.written(path.clone()));
            written.worth.extend(worth.written(path));
            self.present.insert(BaseForm::Gguf, record);
        }
        Ok(written)
    }
}

/// The file of weights that a record knows by its digest, where it is another.
fn unlike(record: &BaseRecord, files: &BaseFiles) -> Option<&'static str> {
    let packed = record.packed.as_ref().map(|of| (MODEL, &of.blake3));
    let gguf = record.gguf.as_ref().map(|of| (GGUF_FILE, &of.blake3));
    let mut known = packed.into_iter().chain(gguf);
    let is_other = |(file, said): &(&str, &String)| {
        let found = files.get(*file).map(|of| &of.digest.blake3);
        found != Some(*said)
    };
    known.find(is_other).map(|(file, _)| file)
}

/// Whether what lies beside the checkpoint's weights belongs in it: a GGUF holds all that there is.
fn has_companions(form: &BaseForm) -> bool {
    *form != BaseForm::Gguf
}

/// A base and what follows `current` belong to the W~ that they were made with: no other one is
/// rounded beside them.
///
/// # Errors
/// [`Fatal::StateRefused`] where either is there.
pub(crate) fn refuse_to_round(out: &OutFolder) -> Result<(), Fatal> {
    let bases = BaseForm::ALL.map(BaseForm::folder).into_iter();
    let mut of = bases.chain(["current"]).map(|name| out.path.join(name));
    if !of.any(|path| exists(&path) || is_link(&path)) {
        return Ok(());
    }
    Err(Fatal::StateRefused {
        path: out.path.clone(),
        reason: "its base and its current generation belong to a W~ that this run would make anew: choose another --out".into(),
    })
}
