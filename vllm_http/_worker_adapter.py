"""What an orchestrator asks of any engine's adapter."""

from __future__ import annotations

from typing import Protocol

from ._engine import EngineProps, HealthStatus
from ._stream import TokenStream
from ._task import TaskRequest


class WorkerAdapter(Protocol):
    """What an orchestrator asks of an adapter, and what `AdapterRegistry` takes."""

    def submit(self, task: TaskRequest) -> TokenStream:
        """Start a task."""
        ...

    def cancel(self, job_id: str) -> None:
        """End a task."""
        ...

    def health(self) -> HealthStatus:
        """Judge the engine."""
        ...

    def props(self) -> EngineProps:
        """Describe the engine."""
        ...

    def engine_version(self) -> str:
        """Name the engine's version."""
        ...

    def close(self, timeout: float = 5.0) -> None:
        """End everything."""
        ...
