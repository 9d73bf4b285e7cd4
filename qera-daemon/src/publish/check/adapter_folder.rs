//! Opens the files of an adapter: finds out which of its forms are there, and reads PEFT's files
//! and the manifest. A file that is missing or malformed is a problem.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use qera_core::dtype::FloatDtype;

use crate::disk::open_file::OpenFile;
use crate::disk::presence::{exists, is_file, is_folder};
use crate::disk::{full, read, read_if_there};
use crate::error::Fatal;
use crate::formats::mlx;
use crate::formats::peft::config::PeftConfig;
use crate::formats::peft::tensors::LoraTensors;
use crate::formats::peft::values::FactorValues;
use crate::formats::safetensors::header::{Claim, Header, HeaderError};
use crate::publish::check::findings::Findings;
use crate::publish::check::manifest_claims::ManifestClaims;
use crate::publish::forms::{GGUF, MLX};
use crate::publish::generation_files::{BROKEN, check_files, is_of_another};
use crate::publish::manifest_seal::{MANIFEST, ManifestSeal, seal_of};
use crate::publish::written::PEFT_TENSORS;
use crate::settings::gguf_path::is_gguf;
use crate::settings::publish::AdapterForm;

/// Name of the file with the tensors.
pub(crate) const TENSORS: &str = PEFT_TENSORS;
/// Name of the configuration.
pub(crate) const CONFIG: &str = "adapter_config.json";
/// Bytes of a tensor that are read at a time; a multiple of every type's size.
const PIECE: usize = 1 << 20;

/// An adapter's files.
#[derive(Debug)]
pub(crate) struct AdapterFolder {
    /// The path as it was given: a folder, or a GGUF.
    pub(crate) path: PathBuf,
    /// The folder of the generation.
    pub(crate) folder: PathBuf,
    /// Whether a file was given.
    is_file: bool,
    /// Whether the path is the whole generation, and not one form of it.
    pub(crate) is_whole: bool,
    /// The forms that are there.
    pub(crate) forms: BTreeSet<AdapterForm>,
    /// PEFT's `adapter_config.json`.
    pub(crate) config: Option<PeftConfig>,
    /// The names, types and shapes of PEFT's tensors.
    pub(crate) tensors: Option<LoraTensors>,
    /// `qera_manifest.json`; only qera's adapters have one.
    pub(crate) manifest: Option<ManifestClaims>,
    file: Option<OpenFile>,
}

impl AdapterFolder {
    /// Opens the files. A folder that has no file of another form is taken for PEFT's.
    pub(crate) fn open(path: &Path, findings: &mut Findings) -> Self {
        let mut folder = Self {
            path: path.to_path_buf(),
            folder: path.to_path_buf(),
            is_file: false,
            is_whole: false,
            forms: BTreeSet::new(),
            config: None,
            tensors: None,
            manifest: None,
            file: None,
        };
        if let Err(error) = folder.find_forms(findings) {
            findings.problem(error.to_string());
        }
        if folder.forms.contains(&AdapterForm::Peft) {
            folder.read_config(findings);
            folder.read_tensors(findings);
        }
        if !folder.forms.is_empty() {
            folder.read_manifest(findings);
        }
        folder
    }

    /// The path of the GGUF.
    #[must_use]
    pub(crate) fn gguf(&self) -> PathBuf {
        match self.is_file {
            true => self.path.clone(),
            false => self.folder.join(GGUF),
        }
    }

    /// The folder of mlx-lm's files.
    #[must_use]
    pub(crate) fn mlx(&self) -> PathBuf {
        match self.is_whole {
            true => self.folder.join(MLX),
            false => self.path.clone(),
        }
    }

    fn find_forms(&mut self, findings: &mut Findings) -> Result<(), Fatal> {
        let path = self.path.clone();
        if !is_folder(&path)? {
            self.is_file = true;
            if !is_gguf(&path)? {
                let message = format!("{}: is no folder, and no GGUF file", path.display());
                findings.problem(message);
                return Ok(());
            }
            self.forms.insert(AdapterForm::Gguf);
            let parent = path.parent().unwrap_or(&path).to_path_buf();
            self.folder = generation_of(&path, GGUF)?.unwrap_or(parent);
            return Ok(());
        }
        if is_file(&path.join(mlx::TENSORS))? {
            self.forms.insert(AdapterForm::Mlx);
            self.folder = generation_of(&path, MLX)?.unwrap_or(path);
            return Ok(());
        }
        self.is_whole = true;
        let has = |name: &str| exists(&path.join(name));
        let (gguf, mlx) = (has(GGUF)?, has(MLX)?);
        let peft = has(CONFIG)? || has(TENSORS)? || !(gguf || mlx);
        for (form, is_there) in [
            (AdapterForm::Gguf, gguf),
            (AdapterForm::Mlx, mlx),
            (AdapterForm::Peft, peft),
        ] {
            if is_there {
                self.forms.insert(form);
            }
        }
        Ok(())
    }

    fn read_config(&mut self, findings: &mut Findings) {
        let parsed = read(&self.path.join(CONFIG)).map(|bytes| PeftConfig::parse(&bytes));
        match parsed {
            Err(error) => findings.problem(format!("{CONFIG}: {error}")),
            Ok(Err(error)) => findings.problem(format!("{CONFIG}: not JSON: {error}")),
            Ok(Ok(mut config)) => {
                for problem in config.problems.drain(..) {
                    findings.problem(format!("{CONFIG}: {problem}"));
                }
                for unchecked in config.unchecked.drain(..) {
                    findings.not_checked(format!("{CONFIG}: {unchecked}"));
                }
                self.config = Some(config);
            }
        }
    }

    fn read_tensors(&mut self, findings: &mut Findings) {
        let path = self.path.join(TENSORS);
        match is_pickled(&self.path) {
            Ok(false) => {}
            Ok(true) => {
                let message = "adapter_model.bin: pickled tensors are not read; save the adapter as safetensors";
                return findings.problem(message.into());
            }
            Err(error) => return findings.problem(error.to_string()),
        }
        match open_tensors(&path) {
            Ok(opened) => {
                self.tensors = Some(LoraTensors::of(opened.header));
                self.file = Some(opened.file);
            }
            Err(error) => findings.problem(format!("{TENSORS}: {error}")),
        }
    }

    fn read_manifest(&mut self, findings: &mut Findings) {
        // A GGUF beside an adapter whose manifest names none does not belong to it.
        let belongs =
            |claims: &ManifestClaims| self.is_whole || self.forms.is_subset(&claims.forms);
        match read_if_there(&self.folder.join(MANIFEST)) {
            Err(error) => findings.problem(format!("{MANIFEST}: {error}")),
            Ok(None) => {}
            Ok(Some(bytes)) if seal_of(&bytes) == ManifestSeal::Broken => {
                // A manifest with a broken seal counts for nothing, whatever it says.
                findings.problem(damaged(MANIFEST, BROKEN));
            }
            Ok(Some(bytes)) => match ManifestClaims::parse(&bytes) {
                Ok(claims) => self.manifest = Some(claims).filter(belongs),
                Err(error) => findings.problem(format!("{MANIFEST}: cannot be read: {error}")),
            },
        }
    }

    /// Checks that the files are those that the manifest was written with. Where one form of a
    /// generation is given, only the files of that form count.
    pub(crate) fn check_files(&self, findings: &mut Findings) {
        let Some(manifest) = &self.manifest else {
            return;
        };
        if let (Some(said), Some(number)) = (manifest.generation, published_as(&self.folder))
            && said != number
        {
            findings.problem(damaged(MANIFEST, &is_of_another(Some(said))));
        }
        let of_mlx = format!("{MLX}/");
        let is_looked_at = |name: &str| {
            self.is_whole
                || self.forms.iter().any(|form| match form {
                    AdapterForm::Peft => false,
                    AdapterForm::Gguf => name == GGUF,
                    AdapterForm::Mlx => name.starts_with(&of_mlx),
                })
        };
        let mut files = manifest.files.clone();
        files.retain(|name, _| is_looked_at(name));
        match check_files(&self.folder, &files) {
            Ok(files) => {
                for of in files {
                    findings.problem(damaged(&of.name, &of.how));
                }
            }
            Err(error) => findings.problem(error.to_string()),
        }
    }

    /// Reads a tensor, a piece at a time, up to its first value that is not finite.
    ///
    /// # Errors
    /// Reading fails for the reason that the operating system gives.
    pub(crate) fn values(&self, claim: &Claim, dtype: FloatDtype) -> std::io::Result<FactorValues> {
        let mut found = FactorValues::new();
        let Some(file) = &self.file else {
            return Ok(found);
        };
        let mut memory = vec![0; PIECE.min(claim.bytes)];
        let mut done = 0;
        while done < claim.bytes && found.not_finite.is_none() {
            let piece = &mut memory[..PIECE.min(claim.bytes - done)];
            file.read_exact_at(piece, claim.start + done as u64)?;
            found.add(piece, dtype);
            done += piece.len();
        }
        Ok(found)
    }
}

/// The folder of the generation whose one form, of this name, a path is, where its manifest is
/// still there.
fn generation_of(path: &Path, form: &str) -> Result<Option<PathBuf>, Fatal> {
    let full = full(path);
    let Some(parent) = full.parent().filter(|_| full.ends_with(form)) else {
        return Ok(None);
    };
    Ok(is_file(&parent.join(MANIFEST))?.then(|| parent.to_path_buf()))
}

/// Whether all that a folder has of tensors is what qera does not read.
fn is_pickled(folder: &Path) -> Result<bool, Fatal> {
    Ok(!is_file(&folder.join(TENSORS))? && is_file(&folder.join("adapter_model.bin"))?)
}

/// The problem of a file that is not what was written.
pub(crate) fn damaged(file: &str, how: &str) -> String {
    format!("{file}: is damaged: it {how}")
}

/// The generation's number, which a folder among the generations of an output folder has as its
/// name.
fn published_as(folder: &Path) -> Option<u64> {
    let path = full(folder);
    let is_published = path.parent()?.file_name()? == "generations";
    is_published.then(|| path.file_name()?.to_str()?.parse().ok())?
}

struct OpenTensors {
    file: OpenFile,
    header: Header,
}

fn open_tensors(path: &Path) -> Result<OpenTensors, HeaderError> {
    let file = OpenFile::open(path)?;
    let bytes = file.identity()?.bytes;
    let header = Header::read(file.reader(), bytes)?;
    Ok(OpenTensors { file, header })
}
