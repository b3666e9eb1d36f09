"""What reading a pickle costs, told before it is read.

A tuple that holds another twice, which holds a third twice, and so on, is a few bytes for each
level; its hash, as the key of a mapping, takes twice the time with each. Forty of them never end,
although nothing in such a file is code. So the tuples are counted here as if they were written out,
by going over the instructions of the pickle without following them.
"""

import pickletools
from typing import IO, Any

_MOST = 2**62
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
# Which of the items that an instruction takes are hashed, or may be.
_HASHED = {
    "SETITEM": slice(0, None, 2),
    "SETITEMS": slice(0, None, 2),
    "DICT": slice(0, None, 2),
    **dict.fromkeys(
        ("ADDITEMS", "FROZENSET", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST"), slice(None)
    ),
}
_KEEP = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}  # in what lies below


class _Machine:
    """The stack of a pickle, with the number of values in each item in place of the items."""

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.marks: list[int] = []
        self.memo: dict[Any, int] = {}
        self.hashed = 0

    def step(self, name: str, argument: Any, operation: pickletools.OpcodeInfo) -> None:
        if name in _PUTS:
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        else:
            self._work(name, operation)

    def _work(self, name: str, operation: pickletools.OpcodeInfo) -> None:
        takes = operation.stack_before
        if pickletools.markobject in takes:
            items = self._pop(self.marks.pop())
            below = takes.index(pickletools.markobject)
        else:
            items = []
            below = len(takes)
            if name in _KEEP:
                items, below = self._pop(len(self.stack) - (below - 1)), 1
        base = self._pop(len(self.stack) - below) if below else []
        if name not in _KEEP:
            items = base + items
            base = []
        self.hashed += sum(items[_HASHED[name]]) if name in _HASHED else 0
        size = min(1 + sum(base) + sum(items), _MOST)
        self.stack += [size] * len(operation.stack_after)

    def _pop(self, start: int) -> list[int]:
        if start < 0:
            raise ValueError("a pickle that takes more than there is")
        items = self.stack[start:]
        del self.stack[start:]
        return items


def hashed_values(file: IO[bytes]) -> int:
    """How many values are hashed, at most, by reading the pickle that begins where `file` stands.

    Afterwards `file` stands behind the pickle.

    Raises:
        ValueError, IndexError, KeyError, UnicodeDecodeError: it is none.
    """
    machine = _Machine()
    for operation, argument, _ in pickletools.genops(file):
        machine.step(operation.name, argument, operation)
    return machine.hashed
