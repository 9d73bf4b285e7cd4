//! The files of a base: what each held when it was written, and when that was. At a start a file is
//! compared by size and time, and read only where the time differs.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Result as IoResult};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::identity::Identity;
use crate::disk::presence::{is_file, is_folder, is_link};
use crate::disk::{TEMPORARY, list};
use crate::error::Fatal;
use crate::publish::generation_files::{DamagedFile, MISSING};
use crate::publish::hashed_file::FileDigest;

/// The files of one base by their names in its folder.
pub(crate) type BaseFiles = BTreeMap<String, BaseFile>;

/// A file of a base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BaseFile {
    /// The length and digest of the file's content.
    #[serde(flatten)]
    pub(crate) digest: FileDigest,
    /// When it was last written: seconds since 1970, by the file system's clock.
    pub(crate) modified: String,
}

impl BaseFile {
    /// Describes the file as it is now, by reading all of it.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn of(path: &Path) -> IoResult<Self> {
        let modified = Identity::at(path)?.modified();
        Ok(Self {
            digest: FileDigest::of(path)?,
            modified,
        })
    }
}

/// All files of a folder, as they are now.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn files_of(folder: &Path) -> Result<BaseFiles, Fatal> {
    let mut found = Vec::new();
    find_in(folder, &mut found)?;
    let files = found.into_iter().map(|path| {
        let name = path.strip_prefix(folder).unwrap_or(&path);
        let name = name.to_string_lossy().into_owned();
        let file = BaseFile::of(&path).map_err(Fatal::io(&path, "read"))?;
        Ok((name, file))
    });
    files.collect()
}

fn find_in(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Fatal> {
    for path in list(folder).map_err(Fatal::io(folder, "read"))? {
        let name = path.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            continue;
        }
        if is_folder(&path)? {
            if !is_link(&path)? {
                find_in(&path, found)?;
            }
        } else if is_file(&path)? {
            found.push(path);
        }
    }
    Ok(())
}

/// The result of looking at the files of a base.
#[derive(Debug, Default)]
pub(crate) struct LookedAtBase {
    /// The files that are as they were written, with their present times.
    pub(crate) files: BaseFiles,
    /// The files that are not.
    pub(crate) damaged: Vec<DamagedFile>,
}

/// Looks at the files of a base by size and time. Where only the time differs the file is read,
/// because a copy is no damage.
///
/// # Errors
/// [`Fatal::Io`] for a file that the disk does not give.
pub(crate) fn look_at(folder: &Path, said: &BaseFiles) -> Result<LookedAtBase, Fatal> {
    let mut looked = LookedAtBase::default();
    for (name, file) in said {
        let path = folder.join(name);
        let how = match Identity::at(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Some(MISSING.into()),
            Err(e) => return Err(Fatal::io(&path, "look at")(e)),
            Ok(now) if now.bytes == file.digest.bytes && now.modified() == file.modified => {
                looked.files.insert(name.clone(), file.clone());
                continue;
            }
            Ok(_) => {
                let now = BaseFile::of(&path).map_err(Fatal::io(&path, "read"))?;
                let how = file.digest.differs(&now.digest);
                looked.files.insert(name.clone(), now);
                how
            }
        };
        looked.damaged.extend(how.map(|how| DamagedFile {
            name: name.clone(),
            how,
        }));
    }
    Ok(looked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use std::fs;
    use std::time::SystemTime;

    /// A touched file is read and accepted, and a changed one of the same length is not; a file
    /// with the known length and time is not read.
    #[test]
    fn size_and_time_are_looked_at_first() {
        let name = format!("qera-base-files-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(folder.join("nested")).unwrap();
        let path = folder.join("nested/weights");
        fs::write(&path, "0123456789").unwrap();
        let said = files_of(&folder).unwrap();
        assert_eq!(said.keys().collect::<Vec<_>>(), ["nested/weights"]);
        let damaged = || {
            let looked = look_at(&folder, &said).unwrap();
            let first = looked.damaged.first().map(|of| of.how.clone());
            first.unwrap_or_default()
        };
        assert_eq!(damaged(), "");
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        let set_time = |time: SystemTime| {
            let file = fs::File::options().append(true).open(&path).unwrap();
            file.set_modified(time).unwrap();
        };
        let later = written + Duration::from_secs(7);
        set_time(later);
        assert_eq!(damaged(), "", "it was touched");
        let now = &look_at(&folder, &said).unwrap().files["nested/weights"];
        assert_ne!(now.modified, said["nested/weights"].modified);
        fs::write(&path, "0123456780").unwrap();
        set_time(later);
        assert!(damaged().starts_with("is not what was written (blake3:"));
        set_time(written);
        assert_eq!(damaged(), "", "it is not read");
        fs::write(&path, "01234").unwrap();
        set_time(written);
        assert_eq!(damaged(), "has 5 bytes, 10 were written");
        fs::remove_file(&path).unwrap();
        assert_eq!(damaged(), "is missing");
        fs::remove_dir_all(&folder).unwrap();
    }
}
