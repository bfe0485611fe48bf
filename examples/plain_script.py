"""Stream an answer to the terminal; ctrl-C stops it, and the engine with it.

    python examples/plain_script.py Tell me a tale

asks the vLLM at VLLM_URL, or an embedded engine whose words mean nothing.
"""

from __future__ import annotations

import os
import sys

from vllm_http import End, Error, TaskRequest, Token, VllmHttpAdapter


def main() -> int:
    """Print the text to stdout, all else to stderr, and return the exit code."""
    question = " ".join(sys.argv[1:]) or "Tell me a tale."
    task = TaskRequest(messages=[{"role": "user", "content": question}], max_tokens=100)
    try:
        with VllmHttpAdapter(engine_url()) as adapter, adapter.submit(task) as stream:
            for event in stream:
                match event:
                    case Token():
                        print(event.text, end="", flush=True)
                    case End():
                        print()
                        print(f"{event.metrics.tokens_generated} tokens", file=sys.stderr)
                    case Error():
                        print(f"\nfailed: {event.error}", file=sys.stderr)
                        return 1
    except KeyboardInterrupt:  # leaving the `with` has cancelled the task
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


def engine_url() -> str:
    """Where the engine is; start one in this process if nobody says."""
    if url := os.environ.get("VLLM_URL"):
        return url
    from vllm_http.testing import FakeEngine

    print("no VLLM_URL: an embedded engine answers, its words mean nothing", file=sys.stderr)
    engine = FakeEngine(token_delay=0.05)
    engine.start()
    return engine.url


if __name__ == "__main__":
    sys.exit(main())
