//! The README of a generation: what it corrects, and the commands that serve it (`engines`).

mod engines;
mod quoting;

use std::path::Path;

use crate::publish::diagonal_worth::{errors_text, methods_text};
use crate::publish::layers::PublishedLayers;
use crate::publish::readme::quoting::shell;
use crate::publish::rounded_base::RoundingChoice;
use crate::settings::publish::{AdapterForm, GGUF_FILE};
use crate::weights::given::GivenModel;

/// What a generation's README is made from.
#[derive(Debug)]
pub(crate) struct Readme<'a> {
    /// The generation's number.
    pub(crate) generation: u64,
    /// The folder where engines find the newest generation.
    pub(crate) folder: &'a str,
    /// The folder of this generation, which stays.
    pub(crate) own_folder: &'a str,
    /// Folder of the model that the adapter belongs on, where that is on this machine.
    pub(crate) base_model: Option<&'a str>,
    /// Folder of the same model with W~ as numbers, where that is on this machine.
    pub(crate) as_numbers: Option<&'a str>,
    /// The layers, and the forms in which they are written.
    pub(crate) layers: PublishedLayers<'a>,
}

/// The text about the weights that the adapter belongs on.
struct Belongs {
    /// Follows the number of layers; empty, or begins with a blank.
    of: String,
    /// Follows the method; empty, or begins with a blank.
    to: String,
    /// Further paragraphs.
    note: String,
    /// The model that `verify` compares the adapter with.
    base: String,
}

impl Readme<'_> {
    /// The whole README.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let given = self.layers.weights.given().map(|of| &*of.given);
        let belongs = match given {
            Some(given) => self.on_given(given),
            None => self.on_made(),
        };
        let mut text = self.opening(&belongs);
        if self.has(AdapterForm::Peft) {
            text += &self.of_peft(given);
        }
        if self.has(AdapterForm::Gguf) {
            text += &self.of_gguf(given);
        }
        if self.has(AdapterForm::Mlx) {
            text += &self.of_mlx(given);
        }
        let folder = shell(Path::new(self.folder));
        text + &format!(
            "
`qera-daemon verify --adapter {folder} --base {}` checks these files.
",
            belongs.base
        )
    }

    /// Whether the generation is written in this form.
    fn has(&self, form: AdapterForm) -> bool {
        self.layers.settings.publish.formats.contains(&form)
    }

    /// The part before engines: what the adapter is.
    fn opening(&self, belongs: &Belongs) -> String {
        let Self {
            generation, layers, ..
        } = *self;
        let (rank, corrected, total) = (layers.rank(), layers.corrected(), layers.outcomes.len());
        let methods = methods_text(&layers);
        let ranks = match layers.settings.publish.ragged {
            true => format!("each of its own rank, up to {rank}"),
            false if self.has(AdapterForm::Peft) => format!("rank {rank}, lora_alpha {rank}"),
            false => format!("rank {rank}"),
        };
        let Belongs { of, to, note, .. } = belongs;
        format!(
            "# qera adapter, generation {generation}

{corrected} of {total} layers{of} corrected {methods}{to}; {ranks}.
`qera_manifest.json` has the errors of every layer.
{note}"
        )
    }

    /// The text for an adapter that corrects what qera quantizes.
    fn on_made(&self) -> Belongs {
        let quantizer = self.layers.weights.format();
        let is_said = self.rounding().is_some() || self.gguf_base().is_some();
        let base_note = match self.base_model {
            Some(_) if is_said => String::new(),
            Some(base) => format!(
                "\nIt belongs on W~, the weights quantized by {quantizer} in `{base}`. On the model in full precision, or on another\n\
                 quantization of it, it does harm.\n"
            ),
            None => format!(
                "\n`QUANTIZED_MODEL` below is the model with its weights quantized by {quantizer} (W~), wherever your engine\n\
                 has it; on the full-precision model the adapter would do harm. `--emit-base` writes such a model.\n"
            ),
        };
        let worth = self.worth();
        let form_note = match self.gguf_base() {
            Some(base) => gguf_note(base),
            None => self.packed_note(),
        };
        Belongs {
            of: String::new(),
            to: format!(" for {quantizer}"),
            note: format!("{base_note}{worth}{form_note}"),
            base: shell(Path::new(self.base())),
        }
    }

    /// The text for an adapter that corrects a file, or a folder that another program packed.
    fn on_given(&self, given: &GivenModel) -> Belongs {
        let (path, errors) = (given.full_path(), errors_text(&self.layers));
        let what = match given.folder() {
            Some(_) => "folder",
            None => "file",
        };
        Belongs {
            of: format!(" of `{}`", path.display()),
            to: String::new(),
            note: format!(
                "
It belongs on that {what} and on no other: what it corrects is the error of these very weights. On the model in full
precision, or on another quantization of it, it does harm.

{errors}"
            ),
            base: shell(&path),
        }
    }

    /// The GGUF base that the adapter belongs on, where there is one.
    fn gguf_base(&self) -> Option<&Path> {
        let base = self.base_model.map(Path::new);
        let is_gguf = |base: &&Path| base.file_name().is_some_and(|name| name == GGUF_FILE);
        base.filter(|base| self.layers.weights.given().is_none() && is_gguf(base))
    }

    /// The folder of the model that the adapter belongs on, or a word for it.
    fn base(&self) -> &str {
        self.base_model.unwrap_or("QUANTIZED_MODEL")
    }

    /// How the weights were rounded, where it was not to nearest.
    fn rounding(&self) -> Option<RoundingChoice> {
        RoundingChoice::new(&self.layers.settings.rounding)
    }

    /// What W~ is worth with the adapter and without it, and which W~ that is where a format has
    /// several.
    fn worth(&self) -> String {
        let belongs = self.rounding().map(|choice| {
            format!(
                "\nIt belongs on the weights in `{}` and on no others: they were rounded together with it ({choice}).\n\
                 On weights of the same format that were rounded to nearest, or by another run, it does harm.\n",
                self.base()
            )
        });
        let errors = errors_text(&self.layers);
        format!("{}\n{errors}", belongs.unwrap_or_default())
    }

    /// Which engines read a packed base, and which do not.
    fn packed_note(&self) -> String {
        let Some(base) = self
            .base_model
            .filter(|base| Some(*base) != self.as_numbers)
        else {
            return String::new();
        };
        let otherwise = match self.as_numbers {
            Some(path) => format!("`{path}` holds the same weights as numbers."),
            None => {
                "`--emit-base=hf,compressed-tensors` writes the same weights as numbers, too, which PEFT takes as they are."
                    .into()
            }
        };
        format!(
            "
`{base}` is packed as compressed-tensors, and vLLM serves it as it is; by its source SGLang does on GPUs (not run).
{otherwise} `qera_base.md` there says what is packed and how exactly.
"
        )
    }
}

/// What a GGUF base is.
fn gguf_note(base: &Path) -> String {
    format!(
        "
`{}` holds the quantized weights exactly, in ggml's blocks; `qera_base.md` beside it says in which. On the
model in full precision, or on another quantization of it, the adapter does harm.
",
        base.display()
    )
}
