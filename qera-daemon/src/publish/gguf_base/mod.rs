//! `OUT/base-gguf`: a copy of the GGUF checkpoint with W~ in the place of the selected weights.
//! `layout` says what each layer is stored in, `blocks` makes the bytes, `reread` checks that they
//! are W~, and `record` keeps what is known of the file.

pub(crate) mod blocks;
pub(crate) mod layout;
pub(crate) mod record;
pub(crate) mod reread;

use std::path::Path;

use crate::disk::{write_json, write_synced};
use crate::error::Fatal;
use crate::formats::gguf::container::Container;
use crate::formats::gguf::writer::{GgufWriteError, GgufWriter};
use crate::publish::base::{Base, BaseRecord, RECORD};
use crate::publish::base_worth::{BaseWorth, README};
use crate::publish::gguf_base::blocks::{put_bf16, put_blocks};
use crate::publish::gguf_base::layout::{GgufLayout, source_of};
use crate::publish::gguf_base::record::GgufRecord;
use crate::publish::gguf_base::reread::reread;
use crate::publish::hashed_file::HashedFile;
use crate::publish::out_folder::OutFolder;
use crate::settings::publish::{BaseForm, GGUF_FILE};
use crate::weights::Weights;
use crate::weights::gguf::source::KnownTensor;

/// What a GGUF base is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GgufBase<'a> {
    /// W and W~.
    pub(crate) weights: &'a Weights,
    /// The type of blocks of each layer, as far as it was known before W~ was made.
    pub(crate) layout: &'a GgufLayout,
    /// What the base is made from, for its record.
    pub(crate) base: &'a Base,
    /// The errors of W~.
    pub(crate) worth: &'a BaseWorth,
}

impl GgufBase<'_> {
    /// Writes the base once, and renames it into place; returns its record.
    ///
    /// # Errors
    /// [`Fatal::Io`]; [`Fatal::Usage`] for a layer that no type holds; [`Fatal::Checkpoint`] for a
    /// weight that is NaN or infinite.
    pub(crate) fn emit(&self, out: &OutFolder) -> Result<BaseRecord, Fatal> {
        let unfinished = out.begin("")?;
        let written = self.write(&unfinished);
        let record = written.inspect_err(|_| out.abandon(""))?;
        out.rename_in(&unfinished, "", BaseForm::Gguf.folder())?;
        Ok(record)
    }

    fn write(&self, folder: &Path) -> Result<BaseRecord, Fatal> {
        let layout = self.layout.with_scales(self.weights)?;
        let path = folder.join(GGUF_FILE);
        let blake3 = self.write_file(&path, &layout)?;
        reread(&path, self.weights)?;
        let gguf = GgufRecord::new(self.weights, &layout, blake3)?;
        let readme = format!("{}\n{}", self.worth.text(), gguf.text());
        let record = BaseRecord {
            gguf: Some(gguf),
            ..BaseRecord::new(self.base, self.weights)?
        };
        write_json(&folder.join(RECORD), &record)?;
        write_synced(&folder.join(README), readme.as_bytes())?;
        Ok(record)
    }

    /// Writes the file, one tensor after another; returns its digest.
    fn write_file(&self, path: &Path, layout: &GgufLayout) -> Result<String, Fatal> {
        let source = source_of(self.weights)?;
        let plans = layout.plans(self.weights, &source);
        let metadata = layout.metadata(self.weights, &source);
        let failed = GgufWriteError::of(path);
        let file = HashedFile::create(path)?;
        let mut writer = GgufWriter::begin_with(file, &metadata, &plans).map_err(&failed)?;
        for tensor in &source.tensors {
            let mut put = |bytes: &[u8]| writer.put(bytes).map_err(&failed);
            match tensor
                .known
                .filter(|of| self.weights.layer_of(of.name).is_some())
            {
                Some(known) => self.put_layer(&known, layout, put)?,
                // A type of unknown size was refused before.
                None => put(tensor.bytes.unwrap_or_default())?,
            }
            writer.end().map_err(&failed)?;
        }
        Ok(writer.finish().map_err(&failed)?.sync()?.blake3)
    }

    fn put_layer(
        &self,
        known: &KnownTensor<'_>,
        layout: &GgufLayout,
        put: impl FnMut(&[u8]) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let Some(layer) = self.weights.layer_of(known.name) else {
            return Ok(());
        };
        match layout.container(layer) {
            Container::Blocks(block) => self
                .weights
                .with_codes(layer, |of| put_blocks(of, block, known.rows, put)),
            Container::Bf16 => put_bf16(self.weights, layer, known.rows, put),
        }
    }
}
