//! The README of a generation: the commands that serve it.

use crate::solve::solution::{LayerSolution, Status};
use crate::weights::WeightFormat;

/// Largest adapter rank that an engine must be told to accept.
const VLLM_RANKS: [usize; 9] = [1, 8, 16, 32, 64, 128, 256, 320, 512];

/// What the README says.
#[derive(Debug)]
pub(crate) struct Readme<'a> {
    /// Number of the generation.
    pub(crate) generation: u64,
    /// Where engines find the newest one.
    pub(crate) folder: &'a str,
    /// Name of the method.
    pub(crate) method: &'static str,
    /// What the weights are quantized to.
    pub(crate) quantizer: &'a WeightFormat,
    /// Folder of the model that the adapter belongs on, where it is here.
    pub(crate) base_model: Option<&'a str>,
    /// The adapter's rank.
    pub(crate) rank: usize,
    /// The solutions.
    pub(crate) solutions: &'a [LayerSolution],
}

impl Readme<'_> {
    /// The whole text.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let Self {
            generation,
            folder,
            method,
            quantizer,
            rank,
            solutions,
            ..
        } = *self;
        let corrected = solutions
            .iter()
            .filter(|s| s.status == Status::Solved)
            .count();
        let max_lora_rank = VLLM_RANKS.into_iter().find(|&r| r >= rank).unwrap_or(rank);
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
        format!(
        "# qera adapter, generation {generation}

{corrected} of {total} layers corrected by method `{method}` for {quantizer}; rank {rank}, lora_alpha {rank}.
`qera_manifest.json` has the errors of every layer.
{base_note}
PEFT:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained(\"{base_model}\")
model = PeftModel.from_pretrained(base, \"{folder}\")
```

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
",
        total = solutions.len(),
    )
    }
}
