"""qera beside vLLM: what the served model's linear layers read, as shards for qera-daemon
(docs/vllm.md)."""

VERSION = "0.1.0"
