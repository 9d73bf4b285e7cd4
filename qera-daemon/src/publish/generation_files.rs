//! The files of a generation. Each is entered with what it holds when it is written, and is checked
//! against that later.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::presence::{exists, is_link};
use crate::disk::read;
use crate::error::Fatal;
use crate::formats::mlx;
use crate::publish::forms::{GGUF, MLX};
use crate::publish::hashed_file::{FileDigest, HashedFile};
use crate::publish::manifest_seal::{MANIFEST, ManifestSeal, seal_of};
use crate::publish::written::PEFT_TENSORS;
use crate::settings::publish::AdapterForm;

/// The digests of files, by their names in a folder.
pub(crate) type Digests = BTreeMap<String, FileDigest>;

/// Writes the files of a generation, and notes what each holds.
#[derive(Debug)]
pub(crate) struct GenerationFiles {
    folder: PathBuf,
    digests: Digests,
}

/// What a sealed manifest says of the files beside it.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct GenerationRecord {
    /// Version of the manifest's layout.
    #[serde(default)]
    manifest_version: Option<u32>,
    /// The generation's number.
    #[serde(default)]
    pub(crate) generation: Option<u64>,
    /// Identity of the state that it was solved from.
    #[serde(default)]
    pub(crate) state: Option<String>,
    /// The files.
    #[serde(default)]
    pub(crate) files: Digests,
    /// The forms in which the adapter is written. Manifests that say nothing of files have these,
    /// too.
    #[serde(default)]
    forms: Option<Vec<AdapterForm>>,
}

/// A file of a generation that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DamagedFile {
    /// The file's name within the folder.
    pub(crate) name: String,
    /// How it differs.
    pub(crate) how: String,
}

impl GenerationFiles {
    /// Files of a folder, of which none is written yet.
    #[must_use]
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_path_buf(),
            digests: BTreeMap::new(),
        }
    }

    /// The path of a file with this name.
    #[must_use]
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Creates a file; [`wrote`](Self::wrote) enters it.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn create(&self, name: &str) -> Result<HashedFile, Fatal> {
        HashedFile::create(&self.path(name))
    }

    /// Enters a file that is durable now.
    pub(crate) fn wrote(&mut self, name: &str, digest: FileDigest) {
        self.digests.insert(name.to_owned(), digest);
    }

    /// Writes a small file.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), Fatal> {
        let path = self.path(name);
        let mut file = HashedFile::create(&path)?;
        file.write_all(bytes).map_err(Fatal::io(&path, "write"))?;
        self.wrote(name, file.sync()?);
        Ok(())
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn write_json(&mut self, name: &str, value: &impl Serialize) -> Result<(), Fatal> {
        let json = serde_json::to_vec_pretty(value);
        let json = json.map_err(|e| Fatal::io(&self.path(name), "write")(e.into()))?;
        self.write(name, &json)
    }

    /// The digests of the files that were written.
    #[must_use]
    pub(crate) const fn digests(&self) -> &Digests {
        &self.digests
    }
}

/// The damaged files of the generation with this number in this folder; none where there is no such
/// generation. In a generation without a seal only missing files are seen.
///
/// # Errors
/// [`Fatal::Io`] for a file that the disk does not give: that is no damage.
pub(crate) fn damaged_files(folder: &Path, number: u64) -> Result<Vec<DamagedFile>, Fatal> {
    let damaged = |how: &str| {
        Ok(vec![DamagedFile {
            name: MANIFEST.into(),
            how: how.into(),
        }])
    };
    let path = folder.join(MANIFEST);
    let bytes = match read(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return damaged(MISSING),
        bytes => bytes.map_err(Fatal::io(&path, "read"))?,
    };
    let seal = seal_of(&bytes);
    if seal == ManifestSeal::Broken {
        return damaged(BROKEN);
    }
    let Ok(record) = serde_json::from_slice::<GenerationRecord>(&bytes) else {
        return Ok(Vec::new()); // Of a program that writes other manifests.
    };
    if seal == ManifestSeal::Unsealed {
        return missing_forms(folder, &record);
    }
    if record.generation != Some(number) {
        return damaged(&is_of_another(record.generation));
    }
    check_files(folder, &record.files)
}

/// Damage: the file is not there.
pub(crate) const MISSING: &str = "is missing";
/// Damage: the manifest's seal does not fit.
pub(crate) const BROKEN: &str = "has a seal that does not fit what it says";

/// Damage: the file's name leads out of the folder, so that it is not looked at.
const OUTSIDE: &str = "names a file outside of this folder, which is not read";

/// Whether a file's name from a manifest stays within the folder.
fn lies_within(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    !name.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Damage: the manifest has another number than its folder.
#[must_use]
pub(crate) fn is_of_another(said: Option<u64>) -> String {
    match said {
        Some(number) => format!("is that of generation {number}"),
        None => "does not say of which generation it is".into(),
    }
}

/// Those of these files that are not as they were written.
///
/// # Errors
/// [`Fatal::Io`] for a file that the disk does not give.
pub(crate) fn check_files(folder: &Path, files: &Digests) -> Result<Vec<DamagedFile>, Fatal> {
    let mut damaged = Vec::new();
    for (name, said) in files {
        let path = folder.join(name);
        let how = if lies_within(name) {
            match FileDigest::of(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => Some(MISSING.into()),
                found => said.differs(&found.map_err(Fatal::io(&path, "read"))?),
            }
        } else {
            Some(OUTSIDE.into())
        };
        damaged.extend(how.map(|how| DamagedFile {
            name: name.clone(),
            how,
        }));
    }
    Ok(damaged)
}

/// Tensor files that a manifest without digests speaks of, and that are missing.
fn missing_forms(folder: &Path, record: &GenerationRecord) -> Result<Vec<DamagedFile>, Fatal> {
    let peft_alone = || vec![AdapterForm::Peft];
    let forms = record.forms.clone().unwrap_or_else(peft_alone).into_iter();
    let names = forms.map(|form| match form {
        AdapterForm::Peft => PEFT_TENSORS.to_owned(),
        AdapterForm::Gguf => GGUF.to_owned(),
        AdapterForm::Mlx => format!("{MLX}/{}", mlx::TENSORS),
    });
    let mut missing = Vec::new();
    for name in names {
        if !exists(&folder.join(&name))? {
            missing.push(DamagedFile {
                name,
                how: MISSING.into(),
            });
        }
    }
    Ok(missing)
}

/// Whether a folder is a generation of this number that this state made, so that it is ours to
/// remove. Generations without a seal count as ours; one that the disk does not show does not.
#[must_use]
pub(crate) fn is_ours(folder: &Path, number: u64, state: Option<&str>) -> bool {
    if !is_link(folder).is_ok_and(|is_link| !is_link)
        || folder.file_name() != Some(folder_name(number).as_ref())
    {
        return false;
    }
    let Ok(bytes) = read(&folder.join(MANIFEST)) else {
        return false;
    };
    let record = serde_json::from_slice::<GenerationRecord>(&bytes);
    match (seal_of(&bytes), record) {
        (ManifestSeal::Unsealed, Ok(of)) => of.manifest_version.is_some(),
        (ManifestSeal::Whole, Ok(of)) => {
            of.generation == Some(number) && of.state.as_deref() == state
        }
        _ => false,
    }
}

/// The name of a generation's folder.
#[must_use]
pub(crate) fn folder_name(number: u64) -> String {
    format!("{number:06}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Anyone can seal a manifest. So a file that it names elsewhere is not read, whether it is
    /// there or not.
    #[test]
    fn names_that_lead_out_of_the_folder_are_not_followed() {
        let folder = std::env::temp_dir().join(format!("qera-digests-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("inner")).unwrap();
        let outside = folder.join("outside");
        std::fs::write(&outside, "0123456789").unwrap();
        std::fs::write(folder.join("inner/own"), "0123456789").unwrap();
        let digest = FileDigest::of(&outside).unwrap();
        let absolute = outside.to_str().unwrap();
        let names = ["../outside", absolute, "", "own"];
        let said = names.map(|name| (name.to_owned(), digest.clone()));
        let damaged = check_files(&folder.join("inner"), &said.into()).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let mut named: Vec<_> = damaged.iter().map(|of| of.name.as_str()).collect();
        named.sort_unstable();
        let mut expected = ["", "../outside", absolute];
        expected.sort_unstable();
        assert_eq!(named, expected);
        assert!(damaged.iter().all(|of| of.how == OUTSIDE));
    }
}
