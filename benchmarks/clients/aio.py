"""aiohttp in the way of vLLM's own benchmark client (`vllm bench serve`, vLLM 0.32)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable

import aiohttp

from .base import Job


class Aio:
    """One event loop, one session, a task for each stream.

    It reads what has come, splits the text at blank lines one message at a time, decodes with
    json, and keeps the time to the first token and the gaps between tokens as that client does.
    """

    def __init__(self, url: str, streams: int) -> None:
        self._url = f"{url}/v1/completions"
        self._loop = asyncio.new_event_loop()
        self._session = self._loop.run_until_complete(self._open())

    async def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=60)
        timeout = aiohttp.ClientTimeout(total=6 * 60 * 60)
        return aiohttp.ClientSession(connector=connector, timeout=timeout)

    def sequence(self, jobs: Iterable[Job]) -> None:
        """One job after the other."""

        async def run() -> None:
            for job in jobs:
                await self._drain(job)

        self._loop.run_until_complete(run())

    def together(self, jobs: list[Job]) -> None:
        """All jobs at once."""
        self.bulk(jobs, len(jobs))

    def bulk(self, jobs: list[Job], in_flight: int) -> None:
        """All jobs, that many at once."""

        async def run() -> None:
            places = asyncio.Semaphore(in_flight)

            async def one(job: Job) -> None:
                async with places:
                    await self._drain(job)

            await asyncio.gather(*(one(job) for job in jobs))

        self._loop.run_until_complete(run())

    async def _drain(self, job: Job) -> None:
        buffer = ""
        gaps: list[float] = []
        latest = time.perf_counter()
        async with self._session.post(self._url, json=job.body()) as response:
            response.raise_for_status()
            async for data in response.content.iter_any():
                buffer += data.decode()
                while "\n\n" in buffer:
                    message, buffer = buffer.split("\n\n", 1)
                    message = message.removeprefix("data: ")
                    if message == "[DONE]":
                        continue
                    chunk = json.loads(message)
                    if choices := chunk.get("choices"):
                        now = time.perf_counter()
                        gaps.append(now - latest)
                        latest = now
                        job.take(choices[0].get("text") or "")
