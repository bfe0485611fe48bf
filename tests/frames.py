"""What a debugger, `pytest -l` or an error tracker shows of an error: all locals of all frames."""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType

from vllm_http import WorkerError


def chain(error: BaseException) -> list[BaseException]:
    """The error and whatever it leads to."""
    found: list[BaseException] = [error]
    for one in found:
        inner = [one.__cause__, one.__context__, *one.args]
        partial = one.partial if isinstance(one, WorkerError) else None
        inner.append(partial.error if partial is not None else None)
        found += [e for e in inner if isinstance(e, BaseException) and e not in found]
    return found


def frames(error: BaseException) -> Iterator[FrameType]:
    """All frames but those of the test itself and of the test's runner."""
    for one in chain(error):
        traceback = one.__traceback__
        while traceback is not None:
            if "vllm_http" in traceback.tb_frame.f_globals.get("__name__", "") or (
                "site-packages" in traceback.tb_frame.f_code.co_filename
            ):
                yield traceback.tb_frame
            traceback = traceback.tb_next


def shown_by(error: BaseException) -> str:
    """Everything that is shown, one local a line."""
    lines = [f"{one!r} {vars(one)!r}" for one in chain(error)]
    for frame in frames(error):
        where = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
        for name, value in frame.f_locals.items():
            lines.append(f"{where}: {name} = {value!r}")
            # One step further, as trackers go: what an object of ours, or a dict, consists of.
            if type(value).__module__.startswith("vllm_http"):
                lines += [f"{where}: {name}.{k} = {v!r}" for k, v in _parts(value)]
    return "\n".join(lines)


def _parts(value: object) -> list[tuple[str, object]]:
    names = list(getattr(value, "__dict__", ())) or list(getattr(value, "__slots__", ()))
    return [(name, getattr(value, name, None)) for name in names]
