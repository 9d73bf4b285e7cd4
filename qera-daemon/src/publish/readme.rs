//! The README of a generation: the commands that serve it.

use std::path::Path;

use crate::publish::base_worth::BaseWorth;
use crate::publish::diagonal_worth::diagonal_worth;
use crate::publish::layers::PublishedLayers;
use crate::publish::rounded_base::RoundingChoice;

/// Largest adapter rank that an engine must be told to accept.
const VLLM_RANKS: [usize; 9] = [1, 8, 16, 32, 64, 128, 256, 320, 512];

/// What the README says.
#[derive(Debug)]
pub(crate) struct Readme<'a> {
    /// Number of the generation.
    pub(crate) generation: u64,
    /// Where engines find the newest one.
    pub(crate) folder: &'a str,
    /// Folder of the model that the adapter belongs on, where it is here.
    pub(crate) base_model: Option<&'a str>,
    /// Its layers.
    pub(crate) layers: PublishedLayers<'a>,
}

impl Readme<'_> {
    /// The whole text.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        match self.layers.weights.given() {
            Some(of) => self.on_file(of.given.path()),
            None => self.on_folder(),
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
        let method = layers.settings.solve.method.name();
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
        let text = format!(
            "# qera adapter, generation {generation}

{corrected} of {total} layers corrected by method `{method}` for {quantizer}; rank {rank}, lora_alpha {rank}.
`qera_manifest.json` has the errors of every layer.
{base_note}{worth}
PEFT:

```python
from peft import PeftModel
from transformers import {class}
base = {class}.from_pretrained(\"{base_model}\"{more})
model = PeftModel.from_pretrained(base, \"{folder}\")
```

`qera-daemon verify --adapter {folder} --base {base_model}` checks these files.
",
            total = layers.outcomes.len(),
        );
        let is_causal = serving.task_type.as_deref() == Some("CAUSAL_LM");
        match is_causal {
            true => text + &self.engines(base_model),
            false => text,
        }
    }

    /// Of an adapter that corrects a file.
    fn on_file(&self, file: &Path) -> String {
        let Self {
            generation,
            folder,
            layers,
            ..
        } = *self;
        let (rank, corrected, total) = (layers.rank(), layers.corrected(), layers.outcomes.len());
        let (method, class) = (
            layers.settings.solve.method.name(),
            &layers.weights.serving().class,
        );
        let errors = BaseWorth::new(&self.layers).errors();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let beside = file.parent().filter(|of| !of.as_os_str().is_empty());
        let beside = beside.unwrap_or(Path::new(".")).display();
        let file = file.display();
        format!(
            "# qera adapter, generation {generation}

{corrected} of {total} layers of `{file}` corrected by method `{method}`; rank {rank}, lora_alpha {rank}.
`qera_manifest.json` has the errors of every layer.

It belongs on that file and on no other: what it corrects is the error of these very weights. On the model in full
precision, or on another quantization of it, it does harm.

{errors}
llama.cpp (`MODEL` is the Hugging Face folder that the file was converted from, for its configuration):

```sh
python convert_lora_to_gguf.py --base MODEL --outfile qera.gguf {folder}
llama-server --model {file} --lora qera.gguf
```

PEFT (Transformers dequantizes the file):

```python
from peft import PeftModel
from transformers import {class}
base = {class}.from_pretrained(\"{beside}\", gguf_file=\"{name}\")
model = PeftModel.from_pretrained(base, \"{folder}\")
```

`qera-daemon verify --adapter {folder} --base {file}` checks these files.
"
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
        let errors = BaseWorth::new(&self.layers).errors();
        let stand_ins = diagonal_worth(&self.layers);
        format!("{}\n{errors}{stand_ins}", belongs.unwrap_or_default())
    }

    /// Engines of causal language models.
    fn engines(&self, base_model: &str) -> String {
        let (folder, rank) = (self.folder, self.layers.rank());
        let max_lora_rank = VLLM_RANKS.into_iter().find(|&r| r >= rank).unwrap_or(rank);
        format!(
            "
vLLM:

```sh
vllm serve {base_model} --enable-lora --max-lora-rank {max_lora_rank} --lora-modules qera={folder}
```

SGLang:

```sh
python -m sglang.launch_server --model-path {base_model} --enable-lora --max-lora-rank {rank} --lora-paths qera={folder}
```

llama.cpp (a base GGUF made from the same weights):

```sh
python convert_lora_to_gguf.py --base {base_model} {folder}
```
"
        )
    }
}
