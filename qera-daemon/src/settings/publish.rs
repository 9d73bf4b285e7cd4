//! Settings of publication: where generations go, how many are kept, what else is written, and who
//! is told.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use qera_core::quantize::Grid;
use serde::{Deserialize, Serialize};

use crate::disk::presence::is_folder;
use crate::error::Fatal;
use crate::formats::compressed_tensors::scheme::PackScheme;
use crate::host::factor_type::FactorType;
use crate::settings::gguf_path::is_gguf;
use crate::settings::notify::NotifySettings;
use crate::settings::options::Options;
use crate::settings::parse::at_least;
use crate::settings::rounding::Rounding;
use crate::settings::weight_format::WeightFormat;

/// A form in which a model with W~ is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BaseForm {
    /// An ordinary Hugging Face checkpoint, W~ as numbers.
    HuggingFace,
    /// Codes and scales as compressed-tensors packs them.
    CompressedTensors,
    /// A copy of the GGUF checkpoint, with W~ in ggml's blocks.
    Gguf,
}

/// Name of the file in [`BaseForm::Gguf`]'s folder.
pub(crate) const GGUF_FILE: &str = "model.gguf";

impl BaseForm {
    /// All forms.
    pub(crate) const ALL: [Self; 3] = [Self::HuggingFace, Self::CompressedTensors, Self::Gguf];

    /// The form's name in `--emit-base`.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::HuggingFace => "hf",
            Self::CompressedTensors => "compressed-tensors",
            Self::Gguf => "gguf",
        }
    }

    /// The form in words.
    #[must_use]
    pub(crate) const fn described(self) -> &'static str {
        match self {
            Self::HuggingFace | Self::CompressedTensors => "a Hugging Face folder",
            Self::Gguf => "a GGUF",
        }
    }

    /// The form's folder in OUT.
    #[must_use]
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Self::HuggingFace => "base",
            Self::CompressedTensors => "base-compressed-tensors",
            Self::Gguf => "base-gguf",
        }
    }

    /// The path in OUT that an engine is given: the folder, or the file in it.
    #[must_use]
    pub(crate) fn served(self, out: &Path) -> PathBuf {
        let folder = out.join(self.folder());
        match self {
            Self::HuggingFace | Self::CompressedTensors => folder,
            Self::Gguf => folder.join(GGUF_FILE),
        }
    }
}

/// A form in which an adapter is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AdapterForm {
    /// The two files of a PEFT adapter, which most engines load.
    Peft,
    /// A GGUF LoRA, for llama.cpp and Ollama.
    Gguf,
    /// mlx-lm's two files.
    Mlx,
}

impl AdapterForm {
    /// All forms.
    pub(crate) const ALL: [Self; 3] = [Self::Peft, Self::Gguf, Self::Mlx];

    /// The form's name in `--format`.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Peft => "peft",
            Self::Gguf => "gguf",
            Self::Mlx => "mlx",
        }
    }

    /// The error that this form cannot be written, with the reason.
    #[must_use]
    pub(crate) fn refused(self, reason: &dyn core::error::Error) -> Fatal {
        let name = self.name();
        Fatal::Usage(format!(
            "--format {name}: {reason} (or leave {name} out of --format)"
        ))
    }
}

/// Settings of publication.
#[derive(Debug, Clone)]
pub(crate) struct PublishSettings {
    /// The output folder.
    pub(crate) out: PathBuf,
    /// How many generations are kept.
    pub(crate) keep_generations: usize,
    /// The forms in which W~ is written: those that are asked for. Where none is and W~ depends on
    /// rows, it is the form of the checkpoint, because W~ would exist nowhere else.
    pub(crate) bases: BTreeSet<BaseForm>,
    /// The forms in which adapters are written; at least one.
    pub(crate) formats: BTreeSet<AdapterForm>,
    /// Whether each layer has a rank of its own, in forms that allow it.
    pub(crate) ragged: bool,
    /// The command after each publication.
    pub(crate) on_publish: Option<String>,
    /// The servers that each generation is handed to.
    pub(crate) notify: NotifySettings,
}

impl PublishSettings {
    /// Checks the options of this part; `grid` is what W~ is stored in.
    ///
    /// # Errors
    /// [`Fatal::Usage`], also for a grid that a form cannot hold.
    pub(crate) fn resolve(
        options: &Options,
        rounding: Rounding,
        grid: &Grid,
    ) -> Result<Self, Fatal> {
        let keep_generations = options.keep_generations.unwrap_or_default() as usize;
        at_least("keep-generations", keep_generations, 3)?;
        let mut bases = forms(options.emit_base.as_deref().unwrap_or_default())?;
        if bases.is_empty() && rounding.uses_rows() {
            let checkpoint = options.checkpoint.as_deref();
            bases.insert(match checkpoint.map_or(Ok(false), is_gguf)? {
                true => BaseForm::Gguf,
                false => BaseForm::HuggingFace,
            });
        }
        let formats = formats(options, &bases)?;
        let notify = NotifySettings::resolve(options)?;
        if !notify.servers.is_empty() && !formats.contains(&AdapterForm::Peft) {
            return Err(Fatal::Usage(
                "--notify: vLLM loads PEFT's files, which are not written: add peft to --format \
                 (where W~ is a GGUF it is gguf alone unless it is given)"
                    .into(),
            ));
        }
        let publish = Self {
            out: options.out.clone().unwrap_or_default(),
            keep_generations,
            bases,
            formats,
            ragged: options.ragged.unwrap_or_default(),
            on_publish: options.on_publish.clone(),
            notify,
        };
        if publish.writes(BaseForm::CompressedTensors) {
            PackScheme::of(grid).map_err(|e| {
                let format = WeightFormat::of(*grid);
                Fatal::Usage(format!("--emit-base=compressed-tensors: {format}: {e}"))
            })?;
        }
        Ok(publish)
    }

    /// Refuses a type of A and B that one of the forms does not have.
    ///
    /// # Errors
    /// [`Fatal::Usage`].
    pub(crate) fn check_holds(&self, dtype: FactorType) -> Result<(), Fatal> {
        let others = self.formats.iter().any(|form| *form != AdapterForm::Gguf);
        if dtype == FactorType::Q8_0 && others {
            return Err(Fatal::Usage(
                "--dtype q8_0: only a GGUF holds it: give --format gguf alone, or f16, bf16, f32"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Whether W~ is written in this form.
    #[must_use]
    pub(crate) fn writes(&self, form: BaseForm) -> bool {
        self.bases.contains(&form)
    }
}

/// The forms in a list; `true` means `hf`, `false` means none.
fn forms(list: &str) -> Result<BTreeSet<BaseForm>, Fatal> {
    if list.is_empty() || list == "false" {
        return Ok(BTreeSet::new());
    }
    let form = |word: &str| {
        let word = if word == "true" { "hf" } else { word };
        let known = BaseForm::ALL.into_iter().find(|form| form.name() == word);
        known.ok_or_else(|| {
            Fatal::Usage(format!(
                "--emit-base: unknown form '{word}', a list of hf, compressed-tensors, gguf, or true, false"
            ))
        })
    };
    list.split(',').map(|word| form(word.trim())).collect()
}

/// The forms that are asked for. By default it is GGUF where W~ is in a GGUF, and PEFT's otherwise.
fn formats(options: &Options, bases: &BTreeSet<BaseForm>) -> Result<BTreeSet<AdapterForm>, Fatal> {
    let Some(list) = &options.format else {
        let quantized = options.quantized.as_deref();
        let is_file = quantized.map_or(Ok(false), |path| is_folder(path).map(|is| !is))?;
        // A base that an earlier run wrote serves the adapter as well.
        let base = options
            .out
            .as_ref()
            .map(|out| out.join(BaseForm::Gguf.folder()));
        let is_there = base.map_or(Ok(false), |base| is_folder(&base))?;
        let form = match is_file || bases.contains(&BaseForm::Gguf) || is_there {
            true => AdapterForm::Gguf,
            false => AdapterForm::Peft,
        };
        return Ok(BTreeSet::from([form]));
    };
    let form = |word: &str| {
        let mut all = AdapterForm::ALL.into_iter();
        all.find(|form| form.name() == word).ok_or_else(|| {
            Fatal::Usage(format!(
                "--format: unknown form '{word}', a list of peft, gguf, mlx"
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
            ("emit-base = \"gguf,hf\"", &["hf", "gguf"]),
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

    /// Where W~ has to be written, it is in a form that such a checkpoint has.
    #[test]
    fn the_form_that_nobody_asked_for_is_that_of_the_checkpoint() {
        let folder = std::env::temp_dir().join(format!("qera-forms-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (bytes, expected) in [
            (&b"GGUF\x03\0\0\0"[..], "gguf"),
            (b"GGU", "hf"),
            (b"", "hf"),
        ] {
            let path = folder.join("model");
            std::fs::write(&path, bytes).unwrap();
            let rounded = format!("rounding = \"feedback\"\ncheckpoint = {path:?}");
            assert_eq!(bases(&rounded).unwrap(), [expected], "{bytes:?}");
            let asked = format!("{rounded}\nemit-base = \"compressed-tensors\"");
            assert_eq!(bases(&asked).unwrap(), ["compressed-tensors"]);
        }
        let folder_itself = format!("rounding = \"feedback\"\ncheckpoint = {folder:?}");
        assert_eq!(bases(&folder_itself).unwrap(), ["hf"]);
        std::fs::remove_dir_all(&folder).unwrap();
        let served = BaseForm::ALL.map(|form| form.served(Path::new("out")));
        let expected = [
            "out/base",
            "out/base-compressed-tensors",
            "out/base-gguf/model.gguf",
        ];
        assert_eq!(served, expected.map(PathBuf::from));
    }

    /// A base that an earlier run wrote goes on serving the adapter.
    #[test]
    fn a_base_that_is_there_decides_the_form_as_one_that_is_asked_for() {
        let out = std::env::temp_dir().join(format!("qera-base-there-{}", std::process::id()));
        let formats = |text: &str| {
            let publish = Settings::from_toml(text).unwrap().publish;
            Vec::from_iter(publish.formats.iter().map(|form| form.name()))
        };
        let asked = format!("out = {out:?}");
        assert_eq!(formats(&asked), ["peft"]);
        std::fs::create_dir_all(out.join("base-gguf")).unwrap();
        assert_eq!(formats(&asked), ["gguf"]);
        assert_eq!(formats(&format!("{asked}\nformat = \"peft\"")), ["peft"]);
        std::fs::remove_dir_all(&out).unwrap();
    }

    #[test]
    fn a_type_that_a_form_cannot_hold_is_refused_by_name() {
        let q8_0 = |more: &str| Settings::from_toml(&format!("dtype = \"q8_0\"\n{more}"));
        assert!(q8_0("format = \"gguf\"").is_ok());
        assert!(q8_0("quantized = \"model.gguf\"\ncheckpoint = \"m\"").is_ok());
        for more in ["", "format = \"gguf,peft\"", "format = \"mlx\""] {
            let said = q8_0(more).unwrap_err().to_string();
            assert!(
                said.contains("--dtype q8_0: only a GGUF holds it"),
                "{said}"
            );
        }
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

    #[test]
    fn forms_of_the_adapter_go_by_what_is_quantized_unless_they_are_given() {
        let given = |text: &str| -> Result<Vec<&'static str>, Fatal> {
            let publish = Settings::from_toml(text)?.publish;
            Ok(publish.formats.iter().map(|form| form.name()).collect())
        };
        let folder = std::env::temp_dir();
        let in_folder = format!("quantized = {folder:?}\ncheckpoint = \"m\"");
        for (text, expected) in [
            ("", &["peft"][..]),
            ("quantized = \"model.gguf\"\ncheckpoint = \"m\"", &["gguf"]),
            (&in_folder, &["peft"]),
            (
                "quantized = \"model.gguf\"\ncheckpoint = \"m\"\nformat = \"peft\"",
                &["peft"],
            ),
            ("format = \"mlx, peft,gguf\"", &["peft", "gguf", "mlx"]),
            ("format = [\"gguf\"]", &["gguf"]),
        ] {
            assert_eq!(given(text).unwrap(), expected, "{text}");
        }
        for list in ["", "onnx", "peft,"] {
            let said = given(&format!("format = \"{list}\""))
                .unwrap_err()
                .to_string();
            assert!(said.contains("--format: unknown form '"), "{said}");
        }
        let said = given("format = \"gguf\"\nnotify = [\"vllm=http://h:1\"]");
        let said = said.unwrap_err().to_string();
        assert!(said.contains("--notify: vLLM loads PEFT's files"), "{said}");
    }
}
