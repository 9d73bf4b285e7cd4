"""What a server is asked, over HTTP."""

import dataclasses
import http.client
import json
import math


class Refused(Exception):
    """An answer that is no success: its status and text."""


@dataclasses.dataclass(frozen=True)
class Token:
    """The first token of an answer, its log probability, and how much of the prompt came from the
    prefix cache."""

    text: str
    logprob: float
    cached: int


class Asking:
    def __init__(self, port):
        self.port = port

    def _call(self, method, path, body=None, request_id=None, seconds=300):
        headers = {"Content-Type": "application/json"} | ({"X-Request-Id": request_id} if request_id else {})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        finally:
            connection.close()
        if answer.status != 200:
            raise Refused(f"{path}: {answer.status} {text[:500]}")
        return text

    def is_healthy(self):
        try:
            self._call("GET", "/health", seconds=5)
        except (OSError, Refused, http.client.HTTPException):
            return False
        return True

    def models(self):
        return json.loads(self._call("GET", "/v1/models"))

    def roots(self):
        """Model name -> what it is loaded from."""
        return {model["id"]: model["root"] for model in self.models()["data"]}

    def load(self, name, path, **more):
        self._call("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path), **more})

    def unload(self, name):
        self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def complete(self, model, tokens, request_id=None, **more):
        body = {"model": model, "prompt": list(map(int, tokens)), "max_tokens": 1, "temperature": 0, "seed": 0, **more}
        return json.loads(self._call("POST", "/v1/completions", body, request_id))

    def next_token(self, model, tokens):
        """Of a request that the tap leaves out."""
        answer = self.complete(model, tokens, "qera-next-token", logprobs=1)
        said = answer["choices"][0]["logprobs"]
        details = answer["usage"].get("prompt_tokens_details") or {}
        return Token(said["tokens"][0], said["token_logprobs"][0], details.get("cached_tokens") or 0)

    def perplexity(self, model, sequences):
        """exp of the mean cross-entropy of the predictions within the sequences."""
        losses = []
        for sequence in sequences:
            answer = self.complete(model, sequence, "qera-perplexity", prompt_logprobs=0)
            said = answer["choices"][0]["prompt_logprobs"]
            assert len(said) == len(sequence) and said[0] is None, len(said)
            losses += [-entry[str(int(token))]["logprob"] for token, entry in zip(sequence[1:], said[1:])]
        return math.exp(sum(losses) / len(losses))
