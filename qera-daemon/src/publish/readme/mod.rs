//! The README of a generation: what it corrects, and the commands that serve it (`engines`).

mod engines;
mod quoting;

use std::path::Path;

use crate::publish::diagonal_worth::{errors_text, methods_text};
use crate::publish::layers::PublishedLayers;
use crate::publish::readme::quoting::shell;
use crate::publish::rounded_base::RoundingChoice;
use crate::settings::gguf_path::is_gguf;
use crate::settings::publish::AdapterForm;
use crate::weights::given::GivenModel;

/// What the README says.
#[derive(Debug)]
pub(crate) struct Readme<'a> {
    /// Number of the generation.
    pub(crate) generation: u64,
    /// Where engines find the newest one.
    pub(crate) folder: &'a str,
    /// Where this one lies, and stays.
    pub(crate) own_folder: &'a str,
    /// Folder of the model that the adapter belongs on, where it is here.
    pub(crate) base_model: Option<&'a str>,
    /// Folder of the same model with W~ as numbers, where it is here.
    pub(crate) as_numbers: Option<&'a str>,
    /// Its layers, and the forms that they are written in.
    pub(crate) layers: PublishedLayers<'a>,
}

/// Where the weights are that an adapter belongs on, and what is said of that.
struct Belongs {
    /// Behind the number of layers; empty, or with a blank before it.
    of: String,
    /// Behind the method; likewise.
    to: String,
    /// Paragraphs.
    note: String,
    /// What `verify` holds it against.
    base: String,
}

impl Readme<'_> {
    /// The whole text.
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

    /// Whether it is written in a form.
    fn has(&self, form: AdapterForm) -> bool {
        self.layers.settings.publish.formats.contains(&form)
    }

    /// What it is, before anything is said of engines.
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

    /// Of an adapter that corrects what qera quantizes.
    fn on_made(&self) -> Belongs {
        let quantizer = self.layers.weights.format();
        let base_note = match self.base_model {
            Some(_) => String::new(),
            None => format!(
                "\n`QUANTIZED_MODEL` below is the model with its weights quantized by {quantizer}, wherever your engine has\n\
                 it; on the full-precision model the adapter would do harm. `--emit-base` writes such a model.\n"
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

    /// Of an adapter that corrects a file, or a folder that another program packed.
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

    /// The base of ours that it belongs on, where that is a GGUF.
    fn gguf_base(&self) -> Option<&Path> {
        let base = self.base_model.map(Path::new);
        base.filter(|base| self.layers.weights.given().is_none() && is_gguf(base))
    }

    /// The folder of the model that it belongs on, or a word for it.
    fn base(&self) -> &str {
        self.base_model.unwrap_or("QUANTIZED_MODEL")
    }

    /// What the W~ that it belongs on is worth with and without it; which W~ that is, where there
    /// is more than one of the format.
    fn worth(&self) -> String {
        let settings = &self.layers.settings.rounding;
        let belongs = RoundingChoice::new(settings).map(|choice| {
            format!(
                "\nIt belongs on the weights in `{}` and on no others: they were rounded together with it ({choice}).\n\
                 On weights of the same format that were rounded to nearest, or by another run, it does harm.\n",
                self.base()
            )
        });
        let errors = errors_text(&self.layers);
        format!("{}\n{errors}", belongs.unwrap_or_default())
    }

    /// What reads a packed base, and what does not.
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

/// What a base is that is a GGUF.
fn gguf_note(base: &Path) -> String {
    format!(
        "
`{}` holds the quantized weights exactly, in ggml's blocks; `qera_base.md` beside it says in which. On the
model in full precision, or on another quantization of it, the adapter does harm.
",
        base.display()
    )
}
