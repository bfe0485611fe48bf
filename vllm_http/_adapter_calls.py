"""What an adapter can be asked that has one answer: about the engine, and of it."""

from __future__ import annotations

from typing import Any

from ._ask import Asker
from ._call import Caller
from ._engine import EngineMetrics, EngineProps, HealthStatus, Model
from ._frames import frameless
from ._pooling import Embeddings, Ranked, embedding, reranking, scoring
from ._probe import Probe
from ._settings import RetryPolicy, Timeouts
from ._tokenizing import Tokenized, detokenization, tokenization
from ._transport_documents import DocumentTransport
from ._version import EngineVersion


class Calls:
    """The calls of an adapter. They block; any thread may make them, beside tasks and each other.

    Those about the engine (`health`, `props`, `engine_version`, `models`, `metrics`) wait five
    seconds at most for it, and try nothing again.

    Those of the engine (`embed`, `score`, `rerank`, `tokenize`, `detokenize`) have the errors of a
    task by the same statuses, and its retries: nothing has come before the whole answer is there.
    An answer that came whole and cannot be read is not asked for again. Each takes

    - ``model``: A name out of `models`; None for the first one that is served.
    - ``extra_body``: More fields of the request under vLLM's own names, sent as they are.
    - ``timeout``: Seconds for the whole call, retries included. None for the adapter's
      ``timeouts.first_token``, or its ``total`` where that is less. Each connect has the
      adapter's ``timeouts.connect`` as well.

    and raises

    - InvalidRequest: An argument is out of its limits (nothing was sent then); or the engine
      answered 4xx: 404 for a route that its model does not serve.
    - Timeout: ``phase`` is "deadline" when ``timeout`` was over, "connect" when no connection
      came about.
    - EngineUnavailable, CapacityExceeded: As for a task.
    - StreamingError: The answer was cut, is no answer to this question, or has more than 256 MiB.
    - AdapterClosed: `close` was called, before or meanwhile.

    `max_concurrency` does not count them: it is your threads that wait.
    """

    def __init__(
        self, transport: DocumentTransport, timeouts: Timeouts, retry: RetryPolicy
    ) -> None:
        self._asker = Asker(transport, timeouts.connect)
        self._probe = Probe(self._asker)
        self._version = EngineVersion(self._probe.version)
        self._caller = Caller(self._asker, retry, timeouts)

    @frameless
    def embed(
        self,
        input: str | list[str] | list[int] | list[list[int]],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        extra_body: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Embeddings:
        """The vectors of texts, from /v1/embeddings (an engine with ``--runner pooling``).

        Args:
            input: A text, its token ids, or a list of one of them.
            dimensions: The length of each vector, where the model was made to be cut.

        Raises:
            WorkerError: See `Calls`.
        """
        return self._caller.call(embedding(input, model, dimensions), extra_body, timeout)

    @frameless
    def score(
        self,
        queries: str | list[str],
        documents: str | list[str],
        *,
        model: str | None = None,
        extra_body: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> list[float]:
        """How well documents fit a query, from /v1/score: one number for each document.

        Args:
            queries: One for all documents, or as many as there are documents.
            documents: One or more.

        Raises:
            WorkerError: See `Calls`.
        """
        return self._caller.call(scoring(queries, documents, model), extra_body, timeout)

    @frameless
    def rerank(
        self,
        query: str,
        documents: list[str],
        *,
        model: str | None = None,
        top_n: int | None = None,
        extra_body: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> list[Ranked]:
        """The documents that fit a query best, from /v1/rerank, the best one first.

        Args:
            query: One text.
            documents: One text or more.
            top_n: How many of them to return; all if None.

        Raises:
            WorkerError: See `Calls`.
        """
        question = reranking(query, documents, model, top_n)
        return self._caller.call(question, extra_body, timeout)

    @frameless
    def tokenize(
        self,
        prompt: str | None = None,
        *,
        messages: list[dict[str, Any]] | None = None,
        model: str | None = None,
        tools: list[dict[str, Any]] | None = None,
        add_special_tokens: bool | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | None = None,
        return_token_strs: bool | None = None,
        extra_body: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Tokenized:
        """The tokens that the engine makes of a prompt or a chat, from /tokenize.

        Args:
            prompt: A text; or
            messages: A chat, which the model's template turns into one.
            tools: Chat only: the functions that the template describes.
            add_special_tokens: Whether the tokenizer adds its own; vLLM's default is True for
                prompts and False for chats.
            add_generation_prompt: Chat only: False leaves out the opening of the answer.
            continue_final_message: Chat only: leave the last message open; with
                ``add_generation_prompt=False``.
            return_token_strs: Fill in `Tokenized.token_strs` too.

        Raises:
            WorkerError: See `Calls`.
        """
        question = tokenization(
            model=model,
            prompt=prompt,
            messages=messages,
            tools=tools,
            add_special_tokens=add_special_tokens,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            return_token_strs=return_token_strs,
        )
        return self._caller.call(question, extra_body, timeout)

    @frameless
    def detokenize(
        self,
        tokens: list[int],
        *,
        model: str | None = None,
        extra_body: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> str:
        """The text of token ids, from /detokenize. vLLM 0.32 leaves out ids that it does not know.

        Raises:
            WorkerError: See `Calls`.
        """
        return self._caller.call(detokenization(tokens, model), extra_body, timeout)

    @frameless
    def health(self) -> HealthStatus:
        """Judge the engine, within five seconds. Never raises for a bad engine.

        HEALTHY: /health answers 200 and a model is listed. DEGRADED: it answers, but no model is
        listed or /v1/models fails. UNHEALTHY: refused, timed out, or 5xx. A busy engine is
        healthy, and so is one that is paused, asleep or draining: vLLM 0.32 answers 200 then too.

        Raises:
            AdapterClosed: `close` was called.
        """
        return self._probe.health()

    @frameless
    def props(self) -> EngineProps:
        """What the engine is and serves.

        Raises:
            WorkerError: It did not answer within five seconds.
        """
        return self._probe.props(self._version.known)

    @frameless
    def engine_version(self) -> str:
        """The engine's version, from /version; "unknown" rather than an error."""
        return self._version.learn()

    @frameless
    def models(self) -> list[Model]:
        """The models it serves, then its LoRA adapters: those have a `Model.parent`.

        Raises:
            WorkerError: It did not answer within five seconds.
        """
        return self._probe.models()

    @frameless
    def metrics(self) -> EngineMetrics:
        """The engine's own load figures, from /metrics.

        To read them is work of the calling thread: 50 ms for a busy vLLM's.

        Raises:
            WorkerError: It did not answer within five seconds, or not with metrics.
        """
        return self._probe.metrics()
