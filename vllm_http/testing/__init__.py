"""A vLLM-shaped server for tests, on a real loopback socket, inside the test's own process.

    from vllm_http.testing import FakeEngine, Stall, Tokens

    with FakeEngine() as engine:
        engine.script(Tokens(3), Stall())        # the next request gets three tokens, then nothing
        ...                                      # talk to engine.url with any client
        (request,) = engine.wait_for_requests(1)
        assert request.hung_up.wait(5)           # the client gave up

Without a script the engine answers as vLLM 0.32 does, with the same headers, framing and JSON
keys, and with words that depend on nothing but the request and the seeds. Of the parameters it
honours those that change an answer's form: n, lists of prompts, limits, stop, stop_token_ids,
echo, logprobs, prompt_logprobs, token ids, stream_options, and a tool_choice that forces a call,
as a server started with a tool parser does. It refuses bad values of these, and ignores what it
does not know, as vLLM does; a grammar has to be sound and is not followed. A script is a list of
steps; the next completions or chat request plays it whatever it asks for, and its end ends the
body. A connection has a script of its own (`script_connection`), played before its first request
is read. `close` and `start` make an engine that dies and comes back. docs/testing.md lists all
steps. This package uses the standard library alone and nothing of the rest of `vllm_http`.

Inside, top down: an engine (`_engine`) listens and gives each TCP connection a thread
(`_connection`); each request goes to the service (`_service`), which keeps the journal
(`_journal`) and plays steps (`_stage`: `_steps`, `_connection_steps`, `_wrapping_steps`) that
write an HTTP answer (`_answer`) with what a generation (`_generation`: `_choice`, `_tools`) holds,
in vLLM's forms (`_forms`, `_logprobs`). `_options` reads what a request wants, `_refusals` and
`_sampling_checks` say what it may not want.
"""

from __future__ import annotations

from ._connection_steps import Cut, Ignore, SlowReader, Stall, Wait, WireBytes
from ._engine import FakeEngine
from ._request import ReceivedRequest
from ._stage import ConnectionStage, ConnectionStep, Stage, Step
from ._steps import (
    Comment,
    Done,
    EndBody,
    ErrorEvent,
    Event,
    Finish,
    Headers,
    Normal,
    Raw,
    Role,
    Status,
    Text,
    Tokens,
    Usage,
)
from ._wrapping_steps import Drip, Forever, Truncate


__all__ = [
    "Comment",
    "ConnectionStage",
    "ConnectionStep",
    "Cut",
    "Done",
    "Drip",
    "EndBody",
    "ErrorEvent",
    "Event",
    "FakeEngine",
    "Finish",
    "Forever",
    "Headers",
    "Ignore",
    "Normal",
    "Raw",
    "ReceivedRequest",
    "Role",
    "SlowReader",
    "Stage",
    "Stall",
    "Status",
    "Step",
    "Text",
    "Tokens",
    "Truncate",
    "Usage",
    "Wait",
    "WireBytes",
]
