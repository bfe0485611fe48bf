"""This package, through its public API alone."""

from __future__ import annotations

from vllm_http import Error, TaskRequest, Token, VllmHttpAdapter

from .base import EXTRA, Job, Skipped, Threaded


def _task(job: Job, job_id: str | None = None) -> TaskRequest:
    return TaskRequest(
        prompt="Hello, world!",
        model=job.model,
        max_tokens=job.max_tokens,
        job_id=job_id,
        extra_body=dict(EXTRA),
    )


class Ours(Threaded):
    """One consumer thread for each stream, with the iterator that users get."""

    def __init__(self, url: str, streams: int) -> None:
        # The default is 256 tasks at once; nothing else is set.
        self.adapter = VllmHttpAdapter(url, max_concurrency=max(256, streams))

    def drain(self, job: Job) -> None:
        """Iterate over the events."""
        with self.adapter.submit(_task(job)) as stream:
            for event in stream:
                if isinstance(event, Token):
                    job.take(event.text)
                elif isinstance(event, Error):
                    raise event.error


class OursResult(Ours):
    """The whole answer at once."""

    def drain(self, job: Job) -> None:
        """Wait for the answer."""
        with self.adapter.submit(_task(job)) as stream:
            job.take(stream.result().text)


class OursMany(Ours):
    """One caller for all tasks."""

    def together(self, jobs: list[Job]) -> None:
        """All events as they come."""
        if not hasattr(self.adapter, "stream_many"):
            raise Skipped("VllmHttpAdapter has no stream_many yet")
        tasks = [_task(job, str(number)) for number, job in enumerate(jobs)]
        for task, event in self.adapter.stream_many(tasks, in_flight=len(jobs)):
            if isinstance(event, Token):
                jobs[int(task.job_id or 0)].take(event.text)
            elif isinstance(event, Error):
                raise event.error

    def bulk(self, jobs: list[Job], in_flight: int) -> None:
        """All answers, in order."""
        if not hasattr(self.adapter, "map"):
            raise Skipped("VllmHttpAdapter has no map yet")
        completions = self.adapter.map((_task(job) for job in jobs), in_flight=in_flight)
        for job, completion in zip(jobs, completions, strict=True):
            job.take(completion.text)
