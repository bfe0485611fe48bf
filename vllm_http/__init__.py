"""A synchronous, threaded client for vLLM's HTTP server, for programs without asyncio.

A caller submits a task and drains a plain iterator; threads of the adapter do the rest:

    caller                           worker thread (each task is pushed onto one)
    ------                           --------------------------------------------
    submit(task) --- admission --->  POST with requests, retried by tenacity, until the first
                                     content is decoded
                                          |
                                          v
                                     reader thread (one for all tasks)
                                     ---------------------------------
                                     watches the sockets of all opened answers
                                     decodes bytes to tokens (sseclient-py, msgspec)
    for event in stream <= queue.Queue (bounded) <= puts what one read has brought
    cancel() --------------------->  a message: the connection is closed at once
                                     rings the alarms of all clocks

One queue, no callbacks. Back-pressure is the full queue: the reader watches that socket no more,
and TCP does the rest. A stream always ends, ends honestly, and ends when told to: whoever comes
first (the engine, a clock, a cancel, a close) puts the one last event, and nothing gets in after
it.

Where to read: `_adapter` (what users hold), `_run` (one task from submit to its end), `_worker`
(open), `_reader` and `_reading` (read), `_receiver` (the queue), `_bulk` (many tasks, one queue),
`_decoder` (bytes to tokens), `_connections` (sockets that can be aborted), `_failures` (what each
means, and what is tried again). Everything public is imported from here.
"""

from ._adapter import VllmHttpAdapter
from ._answer import (
    AnswerInfo,
    Choice,
    Logprob,
    PromptLogprob,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
)
from ._engine import EngineMetrics, EngineProps, HealthState, HealthStatus, Model
from ._errors import (
    AdapterClosed,
    CapacityExceeded,
    EngineUnavailable,
    InvalidRequest,
    StreamingError,
    Timeout,
    Unknown,
    WorkerError,
)
from ._events import (
    Completion,
    End,
    Error,
    Started,
    Token,
    TokenEvent,
    event_from_dict,
    event_from_json,
)
from ._media import audio_part, image_part, video_part
from ._metrics import Metrics, RequestMetrics, SpeculativeDecoding
from ._pooling import Embeddings, Ranked
from ._registry import AdapterRegistry
from ._settings import RetryPolicy, Timeouts
from ._stream import TokenStream
from ._structured import StructuredOutputs
from ._task import TaskRequest
from ._tokenizing import Tokenized
from ._worker_adapter import WorkerAdapter


__version__ = "0.1.0"

__all__ = [
    "AdapterClosed",
    "AdapterRegistry",
    "AnswerInfo",
    "CapacityExceeded",
    "Choice",
    "Completion",
    "Embeddings",
    "End",
    "EngineMetrics",
    "EngineProps",
    "EngineUnavailable",
    "Error",
    "HealthState",
    "HealthStatus",
    "InvalidRequest",
    "Logprob",
    "Metrics",
    "Model",
    "PromptLogprob",
    "Ranked",
    "RequestMetrics",
    "RetryPolicy",
    "SpeculativeDecoding",
    "Started",
    "StreamingError",
    "StructuredOutputs",
    "TaskRequest",
    "Timeout",
    "Timeouts",
    "Token",
    "TokenEvent",
    "TokenStream",
    "Tokenized",
    "ToolCall",
    "ToolCallDelta",
    "TopLogprob",
    "Unknown",
    "VllmHttpAdapter",
    "WorkerAdapter",
    "WorkerError",
    "audio_part",
    "event_from_dict",
    "event_from_json",
    "image_part",
    "video_part",
]
