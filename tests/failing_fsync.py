"""A disk whose fsync fails, without one: the kernel refuses the call for some open files of one thread."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence

_CALLS = {"x86_64": (74, 75), "aarch64": (82, 83)}
"""The numbers of fsync and fdatasync."""
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_CALL_AT, _FIRST_ARGUMENT_AT = 0, 16
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER_MODE = 38, 22, 2


def can_fail_fsync() -> bool:
    """Whether this machine has what it takes."""
    return sys.platform == "linux" and platform.machine() in _CALLS and os.path.exists("/proc/sys/kernel/seccomp")


def fail_fsync_here(descriptors: Sequence[int]) -> None:
    """From now on, in this thread and for good, an fsync of these files ends with an I/O error."""
    fsync, fdatasync = _CALLS[platform.machine()]
    count = len(descriptors)
    program = [
        (_LOAD, 0, 0, _CALL_AT),
        (_IF_EQUAL, 1, 0, fsync),
        (_IF_EQUAL, 0, count + 1, fdatasync),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        *((_IF_EQUAL, count - number, 0, descriptor) for number, descriptor in enumerate(descriptors)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL | errno.EIO),
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    kept = ctypes.create_string_buffer(code, len(code))
    libc = ctypes.CDLL(None, use_errno=True)
    described = _Program(len(program), ctypes.addressof(kept))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _FILTER_MODE, ctypes.byref(described), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "The kernel takes no filter")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))
