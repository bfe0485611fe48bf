"""Where a thread may be stopped, hit or passed over: its lines, or instructions, and its calls."""

from __future__ import annotations

import dis
import sys
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from exploring import locks, models


if TYPE_CHECKING:
    from exploring.world import World


class Steps:
    """Traces the threads of a world.

    Args:
        world: What is told.
        files: Whose lines count.
        fine: Not lines, but the instructions that touch what may be shared.
    """

    def __init__(self, world: World, files: frozenset[str], fine: bool) -> None:
        self._world = world
        self.files = files
        self._fine = fine

    def trace(self, frame: FrameType, event: str, arg: object) -> Any:
        """For `sys.settrace`."""
        if frame.f_code.co_filename not in self.files:
            return None
        if self._fine:
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._local

    def _local(self, frame: FrameType, event: str, arg: object) -> Any:
        if self._world.quiet():
            sys.settrace(None)
        elif event in ("line", "opcode"):
            place = frame.f_lineno if event == "line" else frame.f_lasti
            if place in _touching(frame.f_code)[event]:
                self._world.point(frame)
        return self._local

    def profile(self, frame: FrameType, event: str, arg: object) -> None:
        """For `sys.setprofile`: CPython looks for signals as a call begins, and as it returns."""
        if event == "c_call":
            return
        within = frame.f_code.co_filename
        caller = frame.f_back.f_code.co_filename if event == "return" and frame.f_back else within
        if within in self.files or (caller in self.files and within not in _MODELS):
            self._world.interruptible()


_MODELS = (locks.__file__, models.__file__)
"""They tell by themselves where they may be hit."""

_TOUCH = ("LOAD_ATTR", "LOAD_METHOD", "STORE_", "DELETE_", "BINARY_SUBSCR", "CALL", "FOR_ITER")
_TRUTH = ("POP_JUMP", "CONTAINS_OP", "UNARY_NOT")
_OWN = ("STORE_FAST", "DELETE_FAST")
_places: dict[CodeType, dict[str, frozenset[int]]] = {}


def _touching(code: CodeType) -> dict[str, frozenset[int]]:
    """The lines, and the instructions, that read or change what other threads may have."""
    if code not in _places:
        lines, offsets = set(), set()
        line = code.co_firstlineno
        starts = dict(dis.findlinestarts(code))
        for one in dis.get_instructions(code):
            line = starts.get(one.offset) or line
            if one.opname.startswith((*_TOUCH, *_TRUTH)) and not one.opname.startswith(_OWN):
                offsets.add(one.offset)
                lines.add(line)
        _places[code] = {"line": frozenset(lines), "opcode": frozenset(offsets)}
    return _places[code]
