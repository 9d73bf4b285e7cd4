//! The README of a generation: the commands that serve it.

use std::path::Path;

use crate::publish::diagonal_worth::{errors_text, methods_text};
use crate::publish::layers::PublishedLayers;
use crate::publish::rounded_base::RoundingChoice;
use crate::settings::gguf_path::is_gguf;
use crate::weights::gguf::family::Family;
use crate::weights::given::GivenModel;

/// Largest adapter rank that an engine must be told to accept.
const VLLM_RANKS: [usize; 9] = [1, 8, 16, 32, 64, 128, 256, 320, 512];

/// Architectures whose GGUF Transformers reads right (held against numpy on 4.46.3).
const DEQUANTIZED: [&str; 5] = ["llama", "qwen2", "gpt2", "bloom", "stablelm"];

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
    /// Its layers.
    pub(crate) layers: PublishedLayers<'a>,
}

impl Readme<'_> {
    /// The whole text.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        match self.layers.weights.given() {
            Some(of) => match of.given.folder() {
                Some(folder) => self.on_packed(&folder),
                None => self.on_file(&of.given),
            },
            None => match self.base_model.map(Path::new).filter(|base| is_gguf(base)) {
                Some(base) => self.on_own_gguf(base),
                None => self.on_folder(),
            },
        }
    }

    /// Of an adapter that corrects what qera quantizes.
    fn on_folder(&self) -> String {
        let Self {
            generation,
            folder,
            layers,
            ..
        } = *self;
        let (rank, corrected) = (layers.rank(), layers.corrected());
        let methods = methods_text(&layers);
        let quantizer = layers.weights.format();
        let serving = layers.weights.serving();
        let (class, more) = match &serving.remote_loader {
            Some(loader) => (loader, ", trust_remote_code=True"),
            None => (&serving.class, ""),
        };
        let (base_model, base_note) = match self.base_model {
            Some(base) => (base, String::new()),
            None => (
                "QUANTIZED_MODEL",
                format!(
                    "\n`QUANTIZED_MODEL` below is the model with its weights quantized by {quantizer}, wherever your engine has\n\
                 it; on the full-precision model the adapter would do harm. `--emit-base` writes such a model.\n"
                ),
            ),
        };
        let worth = self.worth(base_model);
        let as_numbers = Path::new(self.as_numbers.unwrap_or(base_model));
        let (base_model, folder) = (Path::new(base_model), Path::new(folder));
        let packed_note = self.packed_note();
        let text = format!(
            "# qera adapter, generation {generation}

{corrected} of {total} layers corrected {methods} for {quantizer}; rank {rank}, lora_alpha {rank}.
`qera_manifest.json` has the errors of every layer.
{base_note}{worth}{packed_note}
PEFT:

```python
from peft import PeftModel
from transformers import {class}
base = {class}.from_pretrained({}{more})
model = PeftModel.from_pretrained(base, {})
```

`qera-daemon verify --adapter {} --base {}` checks these files.
",
            literal(as_numbers),
            literal(folder),
            shell(folder),
            shell(base_model),
            total = layers.outcomes.len(),
        );
        let is_causal = serving.task_type.as_deref() == Some("CAUSAL_LM");
        match is_causal {
            true => text + &self.engines(&shell(base_model), &shell(as_numbers)),
            false => text,
        }
    }

    /// Of an adapter that corrects what qera quantized and wrote as a GGUF.
    fn on_own_gguf(&self, base: &Path) -> String {
        let Self {
            generation,
            folder,
            layers,
            ..
        } = *self;
        let (rank, corrected, total) = (layers.rank(), layers.corrected(), layers.outcomes.len());
        let methods = methods_text(&layers);
        let quantizer = layers.weights.format();
        let (shown, folder) = (base.display(), Path::new(folder));
        let worth = self.worth(&shown.to_string());
        let family = layers.weights.family().map(Family::architecture);
        let of_peft = match family.is_some_and(|of| DEQUANTIZED.contains(&of)) {
            true => self.dequantized(base),
            false => String::new(),
        };
        let commands = self.of_llama_cpp(base) + &of_peft;
        format!(
            "# qera adapter, generation {generation}

{corrected} of {total} layers corrected {methods} for {quantizer}; rank {rank}, lora_alpha {rank}.
`qera_manifest.json` has the errors of every layer.
{worth}
`{shown}` holds the quantized weights exactly, in ggml's blocks; `qera_base.md` beside it says in which. On the
model in full precision, or on another quantization of it, the adapter does harm.
{commands}
`qera-daemon verify --adapter {} --base {}` checks these files.
",
            shell(folder),
            shell(base)
        )
    }

    /// Of an adapter that corrects a file.
    fn on_file(&self, given: &GivenModel) -> String {
        let Self {
            generation,
            folder,
            layers,
            ..
        } = *self;
        let (rank, corrected, total) = (layers.rank(), layers.corrected(), layers.outcomes.len());
        let methods = methods_text(&layers);
        let errors = errors_text(&layers);
        let (file, folder) = (given.full_path(), Path::new(folder));
        let shown = file.display();
        let commands = self.of_llama_cpp(&file) + &self.of_peft(given, &file);
        format!(
            "# qera adapter, generation {generation}

{corrected} of {total} layers of `{shown}` corrected {methods}; rank {rank}, lora_alpha {rank}.
`qera_manifest.json` has the errors of every layer.

It belongs on that file and on no other: what it corrects is the error of these very weights. On the model in full
precision, or on another quantization of it, it does harm.

{errors}{commands}
`qera-daemon verify --adapter {} --base {}` checks these files.
",
            shell(folder),
            shell(&file)
        )
    }

    /// Of an adapter that corrects a folder that another program packed.
    fn on_packed(&self, packed: &Path) -> String {
        let Self {
            generation,
            folder,
            layers,
            ..
        } = *self;
        let (rank, corrected, total) = (layers.rank(), layers.corrected(), layers.outcomes.len());
        let methods = methods_text(&layers);
        let errors = errors_text(&layers);
        let shown = packed.display();
        let serving = layers.weights.serving();
        let class = &serving.class;
        let text = format!(
            "# qera adapter, generation {generation}

{corrected} of {total} layers of `{shown}` corrected {methods}; rank {rank}, lora_alpha {rank}.
`qera_manifest.json` has the errors of every layer.

It belongs on that folder and on no other: what it corrects is the error of these very weights. On the model in full
precision, or on another quantization of it, it does harm.

{errors}
PEFT (Transformers reads the folder where what it needs for {format} is installed):

```python
from peft import PeftModel
from transformers import {class}
base = {class}.from_pretrained({})
model = PeftModel.from_pretrained(base, {})
```

`qera-daemon verify --adapter {} --base {}` checks these files.
",
            literal(packed),
            literal(Path::new(folder)),
            shell(Path::new(folder)),
            shell(packed),
            format = layers.weights.format(),
        );
        let is_causal = serving.task_type.as_deref() == Some("CAUSAL_LM");
        match is_causal {
            true => text + &self.servers(&shell(packed)),
            false => text,
        }
    }

    /// llama.cpp takes a GGUF of the adapter, which its own converter makes; not of Conv1D.
    fn of_llama_cpp(&self, file: &Path) -> String {
        let mut layers = self.layers.weights.layers().iter();
        if layers.any(|layer| layer.transposed) {
            return "
llama.cpp's converter turns the factors of this class (Conv1D) the wrong way round: it is not to be used here.
"
            .into();
        }
        let (folder, file) = (shell(Path::new(self.folder)), shell(file));
        format!(
            "
llama.cpp (`MODEL` is the Hugging Face folder that the file was converted from, for its configuration):

```sh
python convert_lora_to_gguf.py --base MODEL --outfile qera.gguf {folder}
llama-server --model {file} --lora qera.gguf
```
"
        )
    }

    /// Transformers dequantizes one file of some architectures, and knows no factors beside them.
    fn of_peft(&self, given: &GivenModel, file: &Path) -> String {
        let architecture = given.architecture();
        let known = architecture.is_some_and(|of| DEQUANTIZED.contains(&of));
        if !known || given.files().count() > 1 || given.has_scales() {
            return String::new();
        }
        self.dequantized(file)
    }

    fn dequantized(&self, file: &Path) -> String {
        let class = &self.layers.weights.serving().class;
        let name = file.file_name().unwrap_or_default();
        let (beside, name) = (file.parent().unwrap_or(file), Path::new(name));
        format!(
            "
PEFT (Transformers dequantizes the file):

```python
from peft import PeftModel
from transformers import {class}
base = {class}.from_pretrained({}, gguf_file={})
model = PeftModel.from_pretrained(base, {})
```
",
            literal(beside),
            literal(name),
            literal(Path::new(self.folder))
        )
    }

    /// What the W~ that it belongs on is worth with and without it; which W~ that is, where there
    /// is more than one of the format.
    fn worth(&self, base_model: &str) -> String {
        let settings = &self.layers.settings.rounding;
        let belongs = RoundingChoice::new(settings).map(|choice| {
            format!(
                "\nIt belongs on the weights in `{base_model}` and on no others: they were rounded together with it ({choice}).\n\
                 On weights of the same format that were rounded to nearest, or by another run, it does harm.\n",
            )
        });
        let errors = errors_text(&self.layers);
        format!("{}\n{errors}", belongs.unwrap_or_default())
    }

    /// Engines of causal language models; the models' paths are as a shell takes them.
    fn engines(&self, base_model: &str, as_numbers: &str) -> String {
        let folder = shell(Path::new(self.folder));
        let of_llama_cpp = format!(
            "
llama.cpp (a base GGUF made from the same weights):

```sh
python convert_lora_to_gguf.py --base {as_numbers} {folder}
```
"
        );
        self.servers(base_model) + &of_llama_cpp
    }

    /// Engines that serve a Hugging Face folder, whose path is as a shell takes it.
    fn servers(&self, base_model: &str) -> String {
        let [folder, own_folder] = [self.folder, self.own_folder].map(|of| shell(Path::new(of)));
        let rank = self.layers.rank();
        let max_lora_rank = VLLM_RANKS.into_iter().find(|&r| r >= rank).unwrap_or(rank);
        format!(
            "
vLLM (under the generation's own path, never `current`: it would take a later generation for this one):

```sh
vllm serve {base_model} --enable-lora --max-lora-rank {max_lora_rank} --lora-modules qera={own_folder}
```

SGLang:

```sh
python -m sglang.launch_server --model-path {base_model} --enable-lora --max-lora-rank {rank} --lora-paths qera={folder}
```
"
        )
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

/// A path as Python takes it.
fn literal(path: &Path) -> String {
    let text = path.to_string_lossy();
    serde_json::to_string(&text).unwrap_or_default()
}

/// A path as a shell takes it.
fn shell(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if text.chars().all(is_plain) && !text.is_empty() {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
