//! The bases of an output folder: which forms of W~ are there, which are to be written, and which
//! of them serves the adapter.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::disk::presence::{exists, is_link};
use crate::disk::{create_folders, rename, sync, write_json};
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

/// Name of a file while it is being restored.
const UNFINISHED: &str = "restored";

/// The bases of an output folder, in all their forms.
#[derive(Debug)]
pub(crate) struct Bases {
    wanted: BTreeSet<BaseForm>,
    /// The forms that are there, with their records.
    present: BTreeMap<BaseForm, BaseRecord>,
    /// Which layers will be packed, where a packed base is to be written.
    layout: Option<PackedLayout>,
    /// What each layer is stored in, where a GGUF is to be written.
    gguf_layout: Option<GgufLayout>,
    /// Files that were missing and were written again.
    restored: Vec<PathBuf>,
    /// The files of those forms that are there, with their digests.
    files: BTreeMap<BaseForm, BaseFiles>,
    /// Files beside the weights that are not what was written.
    damaged: Vec<DamagedFile>,
}

/// The bases that were written before a generation.
#[derive(Debug, Default)]
pub(crate) struct BasesWritten {
    /// The errors of each base, where they were measured.
    pub(crate) worth: Vec<BaseWritten>,
    /// The packed base, if it was written.
    pub(crate) packed: Option<PackedBaseWritten>,
    /// The GGUF base, if it was written.
    pub(crate) gguf: Option<GgufBaseWritten>,
}

impl BasesWritten {
    /// The events that tell of these bases.
    #[must_use]
    pub(crate) fn events(self) -> Vec<Event<'static>> {
        let packed = self.packed.map(Event::PackedBaseWritten);
        let gguf = self.gguf.map(Event::GgufBaseWritten);
        let worth = self.worth.into_iter().map(Event::BaseWritten);
        packed.into_iter().chain(gguf).chain(worth).collect()
    }
}

/// The records of the packed base and of the GGUF base, for every manifest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BaseRecords<'a> {
    /// The packed base's record.
    pub(crate) packed: Option<&'a PackedRecord>,
    /// The GGUF base's record.
    pub(crate) gguf: Option<&'a GgufRecord>,
}

impl Bases {
    /// The bases that are asked for or are there. None of them is looked into yet.
    ///
    /// # Errors
    /// [`Fatal::Usage`] for a model that a form cannot hold, [`Fatal::Io`].
    pub(crate) fn of(
        out: &OutFolder,
        settings: &PublishSettings,
        weights: &Weights,
    ) -> Result<Self, Fatal> {
        let mut wanted = settings.bases.clone();
        for form in BaseForm::ALL {
            if exists(&out.path.join(form.folder()))? {
                wanted.insert(form);
            }
        }
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

    /// Whether no base is asked for and none is there.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Whether some base still has to be written.
    #[must_use]
    pub(crate) fn are_missing(&self) -> bool {
        self.wanted.len() > self.present.len()
    }

    /// Whether a base is still to be written that needs the files beside the checkpoint's weights.
    #[must_use]
    pub(crate) fn need_companions(&self) -> bool {
        let missing = |form: &&BaseForm| !self.present.contains_key(*form);
        self.wanted.iter().filter(missing).any(has_companions)
    }

    /// The first form that is there.
    #[must_use]
    pub(crate) fn first_present(&self) -> Option<BaseForm> {
        self.present.keys().next().copied()
    }

    /// Looks into the bases that are there, and takes over what they know and this run does not.
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

    /// Writes again those files beside a base's weights that are missing. An engine does not load a
    /// model without its configuration.
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
            for part in companions.list()? {
                if part == Path::new(README) || exists(&folder.join(&part))? {
                    continue;
                }
                let unfinished = out.begin("")?;
                let at = unfinished.join(UNFINISHED);
                if *form == BaseForm::CompressedTensors && part == Path::new(CONFIG) {
                    write_json(&at, &config_of(weights, &PackedLayout::new(weights)?)?)?;
                } else {
                    companions.copy_one(&part, &at)?;
                }
                let target = folder.join(&part);
                let parent = target.parent().unwrap_or(&folder);
                create_folders(parent)?;
                rename(&at, &target).map_err(Fatal::io(&target, "rename into place"))?;
                sync(parent)?;
                out.abandon("");
                self.restored.push(target);
            }
        }
        Ok(())
    }

    /// The files that were missing and were written again.
    #[must_use]
    pub(crate) fn restored(&self) -> &[PathBuf] {
        &self.restored
    }

    /// Compares the files of the bases with what a manifest says of them. Changed weights end the
    /// start; other changed files are only told.
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

    /// The files beside the weights of bases that are not as they were written.
    #[must_use]
    pub(crate) fn damaged(&self) -> &[DamagedFile] {
        &self.damaged
    }

    /// What the files of the bases hold, by the bases' folders. Files of which nothing is known yet
    /// are read.
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

    /// The base that serves the adapter: the packed folder if there is one, else the folder of
    /// numbers. A GGUF base stands alone.
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

    /// The records of the bases that are there.
    #[must_use]
    pub(crate) fn records(&self) -> BaseRecords<'_> {
        let packed = self.present.get(&BaseForm::CompressedTensors);
        let gguf = self.present.get(&BaseForm::Gguf);
        BaseRecords {
            packed: packed.and_then(|of| of.packed.as_ref()),
            gguf: gguf.and_then(|of| of.gguf.as_ref()),
        }
    }

    /// Writes the bases that are asked for and are not there.
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

/// The weights file whose digest differs from the one in the record, if there is one.
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

/// Whether the files beside the checkpoint's weights belong in a base of this form. A GGUF has
/// everything in itself.
fn has_companions(form: &BaseForm) -> bool {
    *form != BaseForm::Gguf
}

/// Refuses to round where a base or a current generation exists: these belong to the W~ that they
/// were made with, and another W~ must not be made beside them.
///
/// # Errors
/// [`Fatal::StateRefused`] where either is there, [`Fatal::Io`].
pub(crate) fn refuse_to_round(out: &OutFolder) -> Result<(), Fatal> {
    let bases = BaseForm::ALL.map(BaseForm::folder).into_iter();
    for path in bases.chain(["current"]).map(|name| out.path.join(name)) {
        if exists(&path)? || is_link(&path)? {
            return Err(Fatal::StateRefused {
                path: out.path.clone(),
                reason: "its base and its current generation belong to a W~ that this run would make anew: choose another --out".into(),
            });
        }
    }
    Ok(())
}
