//! The commands that serve a generation, for each engine by the form that it loads.

use std::path::{Path, PathBuf};

use crate::publish::forms::{GGUF, MLX};
use crate::publish::readme::Readme;
use crate::publish::readme::quoting::{literal, shell};
use crate::settings::publish::AdapterForm;
use crate::weights::gguf::family::Family;
use crate::weights::given::GivenModel;

/// The values of vLLM's --max-lora-rank.
const VLLM_RANKS: [usize; 9] = [1, 8, 16, 32, 64, 128, 256, 320, 512];

/// Architectures whose GGUF Transformers reads right (held against numpy on 4.46.3).
const DEQUANTIZED: [&str; 5] = ["llama", "qwen2", "gpt2", "bloom", "stablelm"];

/// Stands for the model's GGUF where its path is not known.
const MODEL: &str = "MODEL.gguf";

impl Readme<'_> {
    /// The commands for PEFT's files: PEFT itself, vLLM, SGLang, and llama.cpp by its converter.
    pub(super) fn of_peft(&self, given: Option<&GivenModel>) -> String {
        let serving = self.layers.weights.serving();
        let is_causal = serving.task_type.as_deref() == Some("CAUSAL_LM");
        if let Some(base) = self.gguf_base() {
            return self.converted("MODEL", Some(base)) + &self.of_own_gguf(base);
        }
        let Some(given) = given else {
            let numbers = PathBuf::from(self.as_numbers.unwrap_or(self.base()));
            let peft = self.peft_block("PEFT", &[literal(&numbers)]);
            let base = shell(Path::new(self.base()));
            return match is_causal {
                true => peft + &self.servers(&base) + &self.converted(&shell(&numbers), None),
                false => peft,
            };
        };
        match given.folder() {
            None => {
                let file = given.full_path();
                self.converted("MODEL", Some(&file)) + &self.of_dequantized(given)
            }
            Some(folder) => {
                let format = self.layers.weights.format();
                let title = format!(
                    "PEFT (Transformers reads the folder where what it needs for {format} is installed)"
                );
                let peft = self.peft_block(&title, &[literal(&folder)]);
                match is_causal {
                    true => peft + &self.servers(&shell(&folder)),
                    false => peft,
                }
            }
        }
    }

    /// Transformers dequantizes a GGUF of some architectures into one model; it reads no adapter
    /// beside it.
    fn of_dequantized(&self, given: &GivenModel) -> String {
        let architecture = given.architecture();
        let known = architecture.is_some_and(|of| DEQUANTIZED.contains(&of));
        if !known || given.files().count() > 1 || given.has_scales() {
            return String::new();
        }
        self.dequantized(&given.full_path())
    }

    /// The commands for a GGUF that qera wrote.
    fn of_own_gguf(&self, base: &Path) -> String {
        let family = self.layers.weights.family().map(Family::architecture);
        match family.is_some_and(|of| DEQUANTIZED.contains(&of)) {
            true => self.dequantized(base),
            false => String::new(),
        }
    }

    fn dequantized(&self, file: &Path) -> String {
        let name = Path::new(file.file_name().unwrap_or_default());
        let beside = file.parent().unwrap_or(file);
        let arguments = [literal(beside), format!("gguf_file={}", literal(name))];
        self.peft_block("PEFT (Transformers dequantizes the file)", &arguments)
    }

    /// PEFT's lines of Python; `arguments` load the model.
    fn peft_block(&self, title: &str, arguments: &[String]) -> String {
        let serving = self.layers.weights.serving();
        let remote = serving.remote_loader.as_ref();
        let remote = remote.filter(|_| self.layers.weights.given().is_none());
        let (class, more) = match remote {
            Some(loader) => (loader, ", trust_remote_code=True"),
            None => (&serving.class, ""),
        };
        format!(
            "
{title}:

```python
from peft import PeftModel
from transformers import {class}
base = {class}.from_pretrained({}{more})
model = PeftModel.from_pretrained(base, {})
```
",
            arguments.join(", "),
            literal(Path::new(self.folder)),
        )
    }

    /// The commands of engines that serve a Hugging Face folder; `base_model` is its path, quoted
    /// for a shell.
    fn servers(&self, base_model: &str) -> String {
        let [folder, own_folder] = [self.folder, self.own_folder].map(|of| shell(Path::new(of)));
        let rank = self.layers.rank();
        let max_lora_rank = VLLM_RANKS.into_iter().find(|&r| r >= rank).unwrap_or(rank);
        let vllm = format!(
            "
vLLM (under the generation's own path, never `current`: it would take a later generation for this one):

```sh
vllm serve {base_model} --enable-lora --max-lora-rank {max_lora_rank} --lora-modules qera={own_folder}
```
"
        );
        let sglang = match self.layers.settings.publish.ragged {
            true => "
SGLang needs one rank for all layers, and this adapter has several (`--ragged`).
"
            .into(),
            false => format!(
                "
SGLang:

```sh
python -m sglang.launch_server --model-path {base_model} --enable-lora --max-lora-rank {rank} --lora-paths qera={folder}
```
"
            ),
        };
        vllm + &sglang
    }

    /// The command of llama.cpp's converter, where no GGUF lies beside PEFT's files. The converter
    /// transposes the factors of Conv1D wrongly, and knows one rank and alpha for all layers.
    fn converted(&self, base: &str, file: Option<&Path>) -> String {
        let mut layers = self.layers.weights.layers().iter();
        let ragged = self.layers.settings.publish.ragged;
        if self.has(AdapterForm::Gguf) {
            return String::new();
        }
        if ragged || layers.any(|layer| layer.transposed) {
            return "
llama.cpp takes the GGUF that `--format gguf` writes; its converter makes a wrong one of these files.
"
            .into();
        }
        let folder = shell(Path::new(self.folder));
        let Some(file) = file else {
            return format!(
                "
llama.cpp (a base GGUF made from the same weights; `--format gguf` writes what this makes of the adapter):

```sh
python convert_lora_to_gguf.py --base {base} {folder}
```
"
            );
        };
        format!(
            "
llama.cpp (`MODEL` is the Hugging Face folder that the file was converted from, for its configuration; `--format gguf`
writes what this makes of the adapter):

```sh
python convert_lora_to_gguf.py --base {base} --outfile qera.gguf {folder}
llama-server --model {} --lora qera.gguf
```
",
            shell(file)
        )
    }

    /// The commands by which llama.cpp and Ollama load the generation.
    pub(super) fn of_gguf(&self, given: Option<&GivenModel>) -> String {
        let file = given.filter(|of| of.folder().is_none());
        let file = file.map(GivenModel::full_path);
        let file = file.or_else(|| self.gguf_base().map(Path::to_path_buf));
        let note = match &file {
            Some(_) => String::new(),
            None => format!(" (`{MODEL}` is a GGUF of the same quantized weights)"),
        };
        let model = file.unwrap_or_else(|| MODEL.into());
        let adapter = Path::new(self.folder).join(GGUF);
        let (shell_model, shell_adapter) = (shell(&model), shell(&adapter));
        let (model, adapter) = (model.display(), adapter.display());
        format!(
            "
llama.cpp{note}; start it anew for a later generation, since `/lora-adapters` sets scales only:

```sh
llama-server --model {shell_model} --lora {shell_adapter}
```

Ollama, which takes one adapter; `ollama create qera -f Modelfile` of this Modelfile:

```text
FROM {model}
ADAPTER {adapter}
```
"
        )
    }

    /// The command of mlx-lm, which loads a Hugging Face folder.
    pub(super) fn of_mlx(&self, given: Option<&GivenModel>) -> String {
        // By its source, mlx-lm takes every folder of compressed-tensors for 4 bits in groups of
        // 32, and unpacks none.
        let folder = match given {
            Some(given) => given.folder().filter(|_| given.method() == Some("awq")),
            None if self.base_model.is_some() => self.as_numbers.map(PathBuf::from),
            None => Some(self.base().into()),
        };
        let note = match folder {
            Some(_) => "",
            None => " (`MODEL` is a folder of the same quantized weights that mlx-lm loads)",
        };
        let model = shell(&folder.unwrap_or_else(|| "MODEL".into()));
        let adapter = shell(&Path::new(self.folder).join(MLX));
        format!(
            "
MLX{note}:

```sh
mlx_lm.server --model {model} --adapter-path {adapter}
```
"
        )
    }
}
