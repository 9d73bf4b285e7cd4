//! The files of an adapter's folder, opened: what is missing or no such file is a problem.

use std::path::{Path, PathBuf};

use qera_core::dtype::FloatDtype;

use crate::disk::open_file::OpenFile;
use crate::disk::{is_file, is_folder, read, read_if_there};
use crate::formats::peft::config::PeftConfig;
use crate::formats::peft::tensors::LoraTensors;
use crate::formats::peft::values::FactorValues;
use crate::formats::safetensors::header::{Claim, Header, HeaderError};
use crate::publish::check::findings::Findings;
use crate::publish::check::manifest_claims::ManifestClaims;

/// Name of the file with the tensors.
pub(crate) const TENSORS: &str = "adapter_model.safetensors";
/// Name of the configuration.
pub(crate) const CONFIG: &str = "adapter_config.json";
/// Name of the manifest.
pub(crate) const MANIFEST: &str = "qera_manifest.json";
/// Bytes of a tensor in memory at a time, a multiple of every type's size.
const PIECE: usize = 1 << 20;

/// An adapter's files.
#[derive(Debug)]
pub(crate) struct AdapterFolder {
    /// The folder.
    pub(crate) path: PathBuf,
    /// `adapter_config.json`.
    pub(crate) config: Option<PeftConfig>,
    /// The tensors' names, types and shapes.
    pub(crate) tensors: Option<LoraTensors>,
    /// `qera_manifest.json`; only qera's adapters have one.
    pub(crate) manifest: Option<ManifestClaims>,
    file: Option<OpenFile>,
}

impl AdapterFolder {
    /// Opens the files.
    pub(crate) fn open(path: &Path, findings: &mut Findings) -> Self {
        let mut folder = Self {
            path: path.to_path_buf(),
            config: None,
            tensors: None,
            manifest: None,
            file: None,
        };
        if !is_folder(path) {
            findings.problem(format!("{}: is no folder", path.display()));
            return folder;
        }
        folder.read_config(findings);
        folder.read_tensors(findings);
        folder.read_manifest(findings);
        folder
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
        if !is_file(&path) && is_file(&self.path.join("adapter_model.bin")) {
            let message =
                "adapter_model.bin: pickled tensors are not read; save the adapter as safetensors";
            return findings.problem(message.into());
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
        match read_if_there(&self.path.join(MANIFEST)) {
            Err(error) => findings.problem(format!("{MANIFEST}: {error}")),
            Ok(None) => {}
            Ok(Some(bytes)) => match ManifestClaims::parse(&bytes) {
                Ok(claims) => self.manifest = Some(claims),
                Err(error) => findings.problem(format!("{MANIFEST}: cannot be read: {error}")),
            },
        }
    }

    /// A tensor as it is stored.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn bytes(&self, claim: &Claim) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; claim.bytes];
        if let Some(file) = &self.file {
            file.read_exact_at(&mut bytes, claim.start)?;
        }
        Ok(bytes)
    }

    /// Reads a tensor, a piece at a time, to its first value that is not finite.
    ///
    /// # Errors
    /// What the system says.
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
