"""Many prompts through Celery's workers: one JSON line for each, in order, and what failed.

    python examples/celery_batch/run.py [FILE with a prompt on each line] > answers.jsonl

Without REDIS_URL it starts itself anew under examples/with_celery.py, with a Redis, a worker and
an embedded engine. To use your own, start workers first:

    export REDIS_URL=redis://localhost:6379/0 VLLM_URL=http://localhost:8000
    celery --workdir examples/celery_batch -A tasks worker --pool threads --concurrency 64
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from celery.result import AsyncResult
from tasks import generate

from vllm_http import Completion, TaskRequest


PROMPTS = [f"The number {number} is" for number in range(1, 51)]


def main() -> int:
    """Send all prompts and print each answer; 1 if one of them failed."""
    prompts = Path(sys.argv[1]).read_text().splitlines() if sys.argv[1:] else PROMPTS
    results = [generate.delay(TaskRequest(prompt=p, max_tokens=20).to_dict()) for p in prompts]
    failures = []
    for done, (prompt, result) in enumerate(zip(prompts, results, strict=True), start=1):
        answer = outcome(result)
        print(json.dumps({"prompt": prompt, **answer}), flush=True)
        if "error" in answer:
            failures.append(f"{prompt!r}: {answer['error']}")
        print(f"\r{done} of {len(prompts)}", end="", file=sys.stderr, flush=True)
    print(*("", *(f"failed: {failure}" for failure in failures)), sep="\n", file=sys.stderr)
    return 1 if failures else 0


def outcome(result: AsyncResult) -> dict[str, object]:
    """What came of one task, once it is over; Celery has tried it again where that had hope."""
    value = result.get(propagate=False)
    if result.failed():
        return {"error": str(value)}
    completion = Completion.from_dict(value)
    return {"text": completion.text, "finish_reason": completion.finish_reason}


if __name__ == "__main__":
    if "REDIS_URL" not in os.environ:
        launcher = str(Path(__file__).parents[1] / "with_celery.py")
        os.execv(sys.executable, [sys.executable, launcher, *sys.argv])
    sys.exit(main())
