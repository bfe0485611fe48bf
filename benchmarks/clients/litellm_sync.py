"""litellm's text completion over an OpenAI-compatible server."""

from __future__ import annotations

import os


os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch its price list otherwise

import litellm

from .base import EXTRA, Job, Threaded


litellm.telemetry = False


class LiteLLM(Threaded):
    """As its documentation shows."""

    def __init__(self, url: str, streams: int) -> None:
        self._base = f"{url}/v1"

    def drain(self, job: Job) -> None:
        """Iterate over the chunks."""
        chunks = litellm.text_completion(
            model=f"text-completion-openai/{job.model}",
            prompt="Hello, world!",
            max_tokens=job.max_tokens,
            stream=True,
            stream_options={"include_usage": True},
            api_base=self._base,
            api_key="none",
            extra_body=EXTRA,
        )
        for chunk in chunks:
            if chunk.choices and chunk.choices[0].text:
                job.take(chunk.choices[0].text)
