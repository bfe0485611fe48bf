"""openai-python, its synchronous client shared by threads."""

from __future__ import annotations

from openai import OpenAI

from .base import EXTRA, Job, Threaded


class OpenAISync(Threaded):
    """As its README shows."""

    def __init__(self, url: str, streams: int) -> None:
        self._client = OpenAI(base_url=f"{url}/v1", api_key="none")

    def drain(self, job: Job) -> None:
        """Iterate over the chunks."""
        chunks = self._client.completions.create(
            model=job.model,
            prompt="Hello, world!",
            max_tokens=job.max_tokens,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=EXTRA,
        )
        for chunk in chunks:
            if chunk.choices:
                job.take(chunk.choices[0].text)
