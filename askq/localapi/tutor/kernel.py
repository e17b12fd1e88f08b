"""What the kernel forbids a program, beside Python's own fence (Linux on x86-64 and ARM64; elsewhere nothing).

Python's fence, the audit hook of `confined.py`, stands inside the interpreter: whoever could make that write to memory
of their choice would be past it. These two stand outside, and cannot be taken down by what they are around:

- seccomp: no new processes or threads, no programs, no sockets, no signals to others, no higher limits, no mounts;
- Landlock: no files but those of the program's folder, Python's own and the system's libraries.

Loaded by its path, before any program runs; never imported by askq.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_MODE_FILTER = 2
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050000 | errno.EPERM, 0x7FFF0000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCH, _FIRST, _THIRD = 0, 4, 16, 32
"""Offsets in what a filter sees of a call: its number, the architecture, two of its arguments."""
_X32 = 0x40000000

_OF_BOTH = (
    *range(424, 436),  # pidfd_send_signal, io_uring_*, open_tree … fspick, pidfd_open, clone3
    *(438, 442),  # pidfd_getfd, mount_setattr
)
_REFUSED = {
    # socket connect accept sendto sendmsg bind listen socketpair accept4; clone fork vfork execve execveat kill tkill;
    # ptrace process_vm_readv process_vm_writev perf_event_open bpf userfaultfd; setrlimit setuid setgid;
    # chroot mount umount2 pivot_root unshare setns open_by_handle_at; symlink symlinkat link linkat mknod mknodat;
    # add_key request_key keyctl; init_module finit_module delete_module kexec_load reboot swapon swapoff
    "x86_64": (
        *(41, 42, 43, 44, 46, 49, 50, 53, 288, 56, 57, 58, 59, 322, 62, 200),
        *(101, 310, 311, 298, 321, 323, 160, 105, 106),
        *(161, 165, 166, 155, 272, 308, 304, 88, 266, 86, 265, 133, 259),
        *(248, 249, 250, 175, 313, 176, 246, 169, 167, 168),
    ),
    "aarch64": (
        *(198, 203, 202, 206, 211, 200, 201, 199, 242, 220, 221, 281, 129, 130),
        *(117, 270, 271, 241, 280, 282, 164, 146, 144),
        *(51, 40, 39, 41, 97, 268, 265, 36, 37, 33),
        *(217, 218, 219, 105, 273, 106, 104, 142, 224, 225),
    ),
}
_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_TGKILL = {"x86_64": 234, "aarch64": 131}
_PRLIMIT = {"x86_64": 302, "aarch64": 261}

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_DIR, _MAKE_REG, _TRUNCATE = 1 << 7, 1 << 8, 1 << 14
_IN_FOLDER = _WRITE_FILE | _READ_FILE | _READ_DIR | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _TRUNCATE
_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many rights over files a version of Landlock knows; later ones sixteen."""
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/dev/null")


def enter(places: Sequence[str], folder: str | None, files: Iterable[str]) -> None:
    """Shut this process in, for good: what may be read, where the program works, and single files to read besides.

    What the kernel does not know is left out.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return
    # A module may load its libraries only now.
    readable = [*places, *_LIBRARIES, os.path.join(sys.base_prefix, "lib"), *files]  # noqa: PTH118
    with suppress(OSError):
        _files_only(library, readable, folder)
    machine = platform.machine()
    if machine in _ARCHES and sys.maxsize > 2**32:
        code = _filter(machine)
        program = ctypes.create_string_buffer(code)
        shown = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(program))
        library.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.c_char_p(shown), 0, 0)


def _filter(machine: str) -> bytes:
    """The filter, as instructions of eight bytes: code, jump if true, jump if not, operand."""

    def step(code: int, operand: int, true: int = 0, false: int = 0) -> bytes:
        return struct.pack("HBBI", code, true, false, operand)

    steps = [step(_LOAD, _ARCH), step(_EQUAL, _ARCHES[machine], 1), step(_RETURN, _KILL), step(_LOAD, _NUMBER)]
    if machine == "x86_64":  # the same calls under other numbers
        steps += [step(_AT_LEAST, _X32, 0, 1), step(_RETURN, _REFUSE)]
    for number in (*_REFUSED[machine], *_OF_BOTH):
        steps += [step(_EQUAL, number, 0, 1), step(_RETURN, _REFUSE)]
    # A signal to itself is how a process aborts.
    steps += [
        *(step(_EQUAL, _TGKILL[machine], 0, 4), step(_LOAD, _FIRST), step(_EQUAL, os.getpid(), 0, 1)),
        *(step(_RETURN, _ALLOW), step(_RETURN, _REFUSE)),
    ]
    # Limits may be looked at.
    steps += [
        *(step(_EQUAL, _PRLIMIT[machine], 0, 6), step(_LOAD, _THIRD), step(_EQUAL, 0, 0, 3)),
        *(step(_LOAD, _THIRD + 4), step(_EQUAL, 0, 0, 1), step(_RETURN, _ALLOW), step(_RETURN, _REFUSE)),
    ]
    return b"".join([*steps, step(_RETURN, _ALLOW)])


def _files_only(library: ctypes.CDLL, readable: Sequence[str], folder: str | None) -> None:
    version = library.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return
    handled = (1 << _RIGHTS_BY_ABI.get(version, 16)) - 1
    wanted = struct.pack("Q", handled)
    rules = library.syscall(_CREATE_RULESET, wanted, ctypes.c_size_t(len(wanted)), 0)
    if rules < 0:
        return
    try:
        for path in dict.fromkeys(readable):
            _allow(library, rules, path, _READ_FILE | _READ_DIR)
        if folder is not None:
            _allow(library, rules, folder, _IN_FOLDER & handled)
        library.syscall(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _allow(library: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    """Allow what lies below a path; what is not there needs no rule."""
    with suppress(FileNotFoundError):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not os.path.isdir(path):  # noqa: PTH112
                rights &= _READ_FILE | _WRITE_FILE
            library.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", rights, place), 0)
        finally:
            os.close(place)
