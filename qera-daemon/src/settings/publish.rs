//! What publication is told: where generations go, how many stay, what else is written, who is
//! told.

use std::collections::BTreeSet;
use std::path::PathBuf;

use qera_core::quantize::Grid;

use crate::error::Fatal;
use crate::formats::compressed_tensors::scheme::PackScheme;
use crate::settings::notify::NotifySettings;
use crate::settings::options::Options;
use crate::settings::parse::at_least;
use crate::settings::rounding::Rounding;
use crate::settings::weight_format::WeightFormat;

/// In what form a model with W~ is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BaseForm {
    /// An ordinary Hugging Face checkpoint, W~ as numbers.
    HuggingFace,
    /// Codes and scales as compressed-tensors packs them.
    CompressedTensors,
}

impl BaseForm {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::HuggingFace, Self::CompressedTensors];

    /// As `--emit-base` takes it.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::HuggingFace => "hf",
            Self::CompressedTensors => "compressed-tensors",
        }
    }

    /// Its folder in OUT.
    #[must_use]
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Self::HuggingFace => "base",
            Self::CompressedTensors => "base-compressed-tensors",
        }
    }
}

/// Where generations go.
#[derive(Debug, Clone)]
pub(crate) struct PublishSettings {
    /// The output folder.
    pub(crate) out: PathBuf,
    /// Generations kept.
    pub(crate) keep_generations: usize,
    /// In which forms W~ is written: those that are asked for, and, where W~ depends on the rows and
    /// none is, [`BaseForm::HuggingFace`], because W~ is to be had nowhere else.
    pub(crate) bases: BTreeSet<BaseForm>,
    /// Command after each publication.
    pub(crate) on_publish: Option<String>,
    /// Servers that each generation is handed to.
    pub(crate) notify: NotifySettings,
}

impl PublishSettings {
    /// Checks its options; `grid` is what W~ is stored in.
    ///
    /// # Errors
    /// [`Fatal::Usage`]; for a grid that a form cannot hold as well.
    pub(crate) fn resolve(
        options: &Options,
        rounding: Rounding,
        grid: &Grid,
    ) -> Result<Self, Fatal> {
        let keep_generations = options.keep_generations.unwrap_or_default() as usize;
        at_least("keep-generations", keep_generations, 3)?;
        let mut bases = forms(options.emit_base.as_deref().unwrap_or_default())?;
        if bases.is_empty() && rounding.uses_rows() {
            bases.insert(BaseForm::HuggingFace);
        }
        let publish = Self {
            out: options.out.clone().unwrap_or_default(),
            keep_generations,
            bases,
            on_publish: options.on_publish.clone(),
            notify: NotifySettings::resolve(options)?,
        };
        if publish.writes(BaseForm::CompressedTensors) {
            PackScheme::of(grid).map_err(|e| {
                let format = WeightFormat::of(*grid);
                Fatal::Usage(format!("--emit-base=compressed-tensors: {format}: {e}"))
            })?;
        }
        Ok(publish)
    }

    /// Whether W~ is written in this form.
    #[must_use]
    pub(crate) fn writes(&self, form: BaseForm) -> bool {
        self.bases.contains(&form)
    }
}

/// The forms of a list; `true` stands for `hf`, `false` for none.
fn forms(list: &str) -> Result<BTreeSet<BaseForm>, Fatal> {
    if list.is_empty() || list == "false" {
        return Ok(BTreeSet::new());
    }
    let form = |word: &str| {
        let word = if word == "true" { "hf" } else { word };
        let known = BaseForm::ALL.into_iter().find(|form| form.name() == word);
        known.ok_or_else(|| {
            Fatal::Usage(format!(
                "--emit-base: unknown form '{word}', a list of hf, compressed-tensors, or true, false"
            ))
        })
    };
    list.split(',').map(|word| form(word.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn bases(text: &str) -> Result<Vec<&'static str>, Fatal> {
        let publish = Settings::from_toml(text)?.publish;
        Ok(publish.bases.iter().map(|form| form.name()).collect())
    }

    #[test]
    fn a_switch_a_word_and_a_list_say_the_forms() {
        for (text, expected) in [
            ("", &[][..]),
            ("emit-base = false", &[]),
            ("emit-base = true", &["hf"]),
            ("emit-base = \"hf\"", &["hf"]),
            (
                "emit-base = \"compressed-tensors\"",
                &["compressed-tensors"],
            ),
            (
                "emit-base = [\"compressed-tensors\", \"hf\"]",
                &["hf", "compressed-tensors"],
            ),
            (
                "emit-base = \"hf, compressed-tensors\"",
                &["hf", "compressed-tensors"],
            ),
            ("rounding = \"projected\"", &["hf"]),
            (
                "rounding = \"projected\"\nemit-base = \"compressed-tensors\"",
                &["compressed-tensors"],
            ),
        ] {
            assert_eq!(bases(text).unwrap(), expected, "{text}");
        }
        let said = bases("emit-base = \"gptq\"").unwrap_err().to_string();
        assert!(said.contains("--emit-base: unknown form 'gptq'"), "{said}");
    }

    #[test]
    fn a_grid_that_a_form_cannot_hold_is_refused_by_name() {
        let said = bases("emit-base = \"compressed-tensors\"\nquantizer = \"mxint3\"");
        let said = said.unwrap_err().to_string();
        assert!(
            said.contains("--emit-base=compressed-tensors: mxint3/32: "),
            "{said}"
        );
        assert!(bases("emit-base = true\nquantizer = \"mxint3\"").is_ok());
    }
}
