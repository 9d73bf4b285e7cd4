//! The files beside the weights in the checkpoint's folder that a loader may want: configurations,
//! tokenizers, the code of `auto_map`. Everything is copied except weights, in this format or
//! another, because no list of what loaders want would be complete.

use std::path::{Path, PathBuf};

use crate::disk::open_file::OpenFile;
use crate::disk::presence::{exists, is_file, is_folder, is_link};
use crate::disk::{copy_synced, create_folders, list, resolve, sync};
use crate::error::Fatal;
use crate::settings::Settings;
use crate::settings::publish::BaseForm;

/// Endings of the names of weight files, after the dot. Their indices are left out as well.
const WEIGHTS: [&str; 13] = [
    "safetensors",
    "bin",
    "pt",
    "pth",
    "ckpt",
    "h5",
    "msgpack",
    "gguf",
    "onnx",
    "onnx_data",
    "ot",
    "tflite",
    "npz",
];
/// What follows the weights' ending in the name of an index.
const INDEX: &str = ".index.json";

/// The files beside a checkpoint's weights, and the folders that are left out.
#[derive(Debug)]
pub(crate) struct Companions {
    folder: PathBuf,
    /// Whether subfolders belong to the checkpoint.
    nested: bool,
    /// Folders that are left out, with symlinks resolved: qera's own input and output may lie in
    /// the checkpoint's folder.
    not_entered: Vec<PathBuf>,
}

impl Companions {
    /// The companions of the checkpoint in a folder. Where the checkpoint was given as a file,
    /// subfolders may belong to others.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn new(
        settings: &Settings,
        checkpoint: &Path,
        folder: &Path,
    ) -> Result<Self, Fatal> {
        let out = &settings.publish.out;
        let ours = [out.clone(), out.join("generations")].into_iter();
        let ours = ours.chain(BaseForm::ALL.map(|form| out.join(form.folder())));
        let ours = ours.chain([settings.state.clone()]);
        let ours = ours.chain(settings.source.watch.clone());
        Ok(Self {
            folder: folder.to_path_buf(),
            nested: is_folder(checkpoint)?,
            not_entered: ours.filter_map(|path| resolve(&path).ok()).collect(),
        })
    }

    /// The companions' paths within the folder. Each is opened, so that one that cannot be read is
    /// found before hours of solving.
    ///
    /// # Errors
    /// [`Fatal::Io`] with the path that cannot be read.
    pub(crate) fn find(&self) -> Result<Vec<PathBuf>, Fatal> {
        let found = self.list()?;
        for part in &found {
            let path = self.folder.join(part);
            OpenFile::open(&path).map_err(Fatal::io(&path, "read"))?;
        }
        Ok(found)
    }

    /// The companions' paths within the folder. None is opened.
    ///
    /// # Errors
    /// [`Fatal::Io`] with the path of a folder that cannot be read.
    pub(crate) fn list(&self) -> Result<Vec<PathBuf>, Fatal> {
        let mut found = Vec::new();
        self.find_in(Path::new(""), &mut found)?;
        Ok(found)
    }

    fn find_in(&self, part: &Path, found: &mut Vec<PathBuf>) -> Result<(), Fatal> {
        let folder = self.folder.join(part);
        for path in list(&folder).map_err(Fatal::io(&folder, "read"))? {
            let Some(name) = path.file_name() else {
                continue;
            };
            let part = part.join(name);
            let name = name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            if is_folder(&path)? {
                if self.nested && !is_link(&path)? && !self.is_ours(&path) {
                    self.find_in(&part, found)?;
                }
                continue;
            }
            // A pipe or a socket has no content; a link that leads nowhere is a missing file.
            let holds_nothing = exists(&path)? && !is_file(&path)?;
            if !holds_nothing && !is_weights(&name) {
                found.push(part);
            }
        }
        Ok(())
    }

    fn is_ours(&self, folder: &Path) -> bool {
        resolve(folder).is_ok_and(|folder| self.not_entered.contains(&folder))
    }

    /// Copies the companions into a folder. A link is copied as the file that it leads to.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn copy(&self, to: &Path) -> Result<(), Fatal> {
        for part in self.find()? {
            let target = to.join(&part);
            let folder = target.parent().unwrap_or(to);
            create_folders(folder)?;
            copy_synced(&self.folder.join(&part), &target)?;
            // The file is made durable together with the folders that it lies in.
            let folders = folder.ancestors().take_while(|above| above.starts_with(to));
            folders.into_iter().try_for_each(sync)?;
        }
        Ok(())
    }

    /// Copies one companion to a path.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn copy_one(&self, part: &Path, to: &Path) -> Result<(), Fatal> {
        copy_synced(&self.folder.join(part), to)
    }
}

/// Whether a file with this name holds weights, or is an index of such files.
fn is_weights(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let listed = name.strip_suffix(INDEX).unwrap_or(&name);
    let end = listed.rsplit_once('.').map(|(_, end)| end);
    end.is_some_and(|end| WEIGHTS.contains(&end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::options::Options;
    use std::fs;

    /// A checkpoint's folder with everything that may lie in one, and with output, state and
    /// watched folder in it.
    fn checkpoint(name: &str) -> PathBuf {
        let name = format!("qera-companions-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        for part in [
            "1_Pooling",
            "onnx",
            "original/deep",
            "out/generations/000001",
            "state",
            "activations",
            ".git",
            "elsewhere/linked",
        ] {
            fs::create_dir_all(folder.join("model").join(part)).unwrap();
        }
        let (model, blobs) = (folder.join("model"), folder.join("blobs"));
        fs::rename(model.join("elsewhere"), &blobs).unwrap();
        for file in [
            "config.json",
            "modeling_own.py",
            "spiece.model",
            "model.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin.index.json",
            "tf_model.H5",
            "model.onnx_data",
            "1_Pooling/config.json",
            "onnx/model.onnx",
            "original/deep/params.json",
            "original/consolidated.00.pth",
            "out/generations/000001/README.md",
            "state/sites.json",
            "activations/notes.txt",
            ".gitattributes",
            ".git/config",
        ] {
            fs::write(model.join(file), file).unwrap();
        }
        fs::write(blobs.join("tokenizer"), "of a blob").unwrap();
        fs::write(blobs.join("linked/x.json"), "no").unwrap();
        let link = std::os::unix::fs::symlink::<&Path, PathBuf>;
        link(
            Path::new("../blobs/tokenizer"),
            model.join("tokenizer.json"),
        )
        .unwrap();
        link(Path::new("../blobs/linked"), model.join("linked")).unwrap();
        folder
    }

    fn companions(folder: &Path, checkpoint: &str) -> Companions {
        let model = folder.join("model");
        let settings = Settings::resolve(&Options {
            out: Some(model.join("out")),
            state: Some(model.join("state")),
            watch: Some(model.join("activations")),
            ..Options::defaults()
        });
        Companions::new(&settings.unwrap(), &model.join(checkpoint), &model).unwrap()
    }

    #[test]
    fn all_is_copied_but_weights_and_what_is_ours() {
        let folder = checkpoint("copied");
        let to = folder.join("to");
        fs::create_dir(&to).unwrap();
        companions(&folder, "").copy(&to).unwrap();
        let copied = companions(&folder, "").find().unwrap();
        let expected = [
            "1_Pooling/config.json",
            "config.json",
            "modeling_own.py",
            "original/deep/params.json",
            "spiece.model",
            "tokenizer.json",
        ];
        assert_eq!(copied, expected.map(PathBuf::from));
        for part in copied {
            let text = fs::read_to_string(to.join(&part)).unwrap();
            let own = part.to_str().unwrap();
            assert_eq!(
                text,
                if own == "tokenizer.json" {
                    "of a blob"
                } else {
                    own
                }
            );
        }
        let mut left: Vec<_> = list(&to).unwrap();
        left.retain(|path| path.is_dir());
        let folders = ["1_Pooling", "original"].map(|name| to.join(name));
        assert_eq!(left, folders, "a folder of weights leaves nothing");
        assert!(!is_link(&to.join("tokenizer.json")).unwrap());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn beside_a_file_only_what_lies_there_is_copied() {
        let folder = checkpoint("beside");
        let found = companions(&folder, "model.safetensors").find().unwrap();
        let expected = [
            "config.json",
            "modeling_own.py",
            "spiece.model",
            "tokenizer.json",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let folder = checkpoint("unread");
        fs::remove_file(folder.join("blobs/tokenizer")).unwrap();
        let refused = companions(&folder, "").find().unwrap_err().to_string();
        assert!(refused.contains("model/tokenizer.json: read"), "{refused}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
