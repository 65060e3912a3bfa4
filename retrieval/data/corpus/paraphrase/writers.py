"""Language models that say a text again: a local one, or a server's."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from typing import Any, Protocol

from retrieval.errors import ConfigError

PROMPT = (
    "Say the following about a piece of music again in other words, naturally and briefly. Keep "
    "every number, every instrument, every key and chord, and their order. Answer with the new "
    "text alone.\n\n"
)
#: Environment variable with the key of a server that wants one.
KEY_VARIABLE = "LONGPLAY_API_KEY"
_MAX_ANSWER_BYTES = 1 << 20
_TIMEOUT_S = 120


class Writer(Protocol):
    """Says a text again; ``attempt`` changes the draw."""

    def write(self, text: str, attempt: int) -> str:
        """The model's answer, as it is."""


class Endpoint:
    """A server that speaks OpenAI's chat completions.

    Args:
        url: up to ``/v1``, for example ``http://localhost:8000/v1``.
        model: its name there.
    """

    def __init__(self, url: str, model: str):
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"--endpoint: {url!r}, expected an http or https address up to /v1")
        self.url, self.model = url.rstrip("/") + "/chat/completions", model

    def write(self, text: str, attempt: int) -> str:
        """Ask the server.

        Raises:
            ConfigError: it cannot be reached or answers otherwise than expected.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": PROMPT + text}],
            "temperature": 0.8,
            "seed": attempt,
        }
        headers = {"Content-Type": "application/json"}
        if os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {os.environ[KEY_VARIABLE]}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                row: Any = json.loads(answer.read(_MAX_ANSWER_BYTES))
            return str(row["choices"][0]["message"]["content"])
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise ConfigError(f"--endpoint: {self.url} gave no answer ({error})") from error


class LocalModel:
    """A causal language model in a folder that ``save_pretrained`` wrote, or of a named hub id.

    Args:
        name: folder or id.
        max_new_tokens: longest answer.
    """

    def __init__(self, name: str, max_new_tokens: int = 256):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.net = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True).eval()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"--model: {name!r} cannot be loaded as a causal language model ({error})"
            ) from error
        self.max_new_tokens = max_new_tokens

    def write(self, text: str, attempt: int) -> str:
        """Generate an answer; the draw depends on the text and the attempt alone."""
        import torch

        prompt = PROMPT + text
        if self.tokenizer.chat_template:
            message = [{"role": "user", "content": prompt}]
            prompt = str(
                self.tokenizer.apply_chat_template(
                    message, tokenize=False, add_generation_prompt=True
                )
            )
        ids = self.tokenizer(prompt, return_tensors="pt")
        digest = hashlib.sha256(f"{attempt} {text}".encode()).digest()
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(int.from_bytes(digest[:7], "big"))
            out = self.net.generate(
                **ids, do_sample=True, temperature=0.8, top_p=0.95,
                max_new_tokens=self.max_new_tokens, pad_token_id=self.tokenizer.eos_token_id,
            )  # fmt: skip
        new = out[0, ids["input_ids"].shape[1] :]
        return str(self.tokenizer.decode(new, skip_special_tokens=True))
