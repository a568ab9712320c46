"""A seccomp filter as classic BPF, installed by prctl: system calls that no job needs, and all ways to a network.

https://docs.kernel.org/userspace-api/seccomp_filter.html. A list of what is refused, and not of what is allowed: libraries
for GPUs and new versions of libc use calls that nobody lists. What reaches files is Landlock's to decide.
"""

from __future__ import annotations

import ctypes
import errno
import platform
from functools import cache

from worker.confinement.syscalls import LINUX, prctl

PR_GET_SECCOMP, PR_SET_SECCOMP, MODE_FILTER = 21, 22, 2
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
OFFSET_NUMBER, OFFSET_ARCHITECTURE, OFFSET_FIRST_ARGUMENT = 0, 4, 16
NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
X32_CALLS = 0x40000000
"""On x86-64 the same calls have a second number from here on."""

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CALLS: dict[str, tuple[int, int]] = {
    # name: (x86_64, aarch64)
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "quotactl": (179, 60),
    "unshare": (272, 97),
    "setns": (308, 268),
    # a file by its number on the disk, past every folder above it
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    "syslog": (103, 116),
    # no network, local sockets such as the broker's included; socketpair, which connects nobody else, stays
    "socket": (41, 198),
    # its operations are no system calls, so that no filter sees them
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
CLONE, CLONE3 = (56, 220), (435, 435)


class Instruction(ctypes.Structure):
    """struct sock_filter: an operation, how many instructions to skip when it holds and when not, a number."""

    _fields_ = [
        ("code", ctypes.c_uint16),
        ("when_true", ctypes.c_uint8),
        ("when_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    ]


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_uint16), ("filter", ctypes.POINTER(Instruction))]


@cache
def available() -> bool:
    """Whether the kernel filters system calls, and this processor's numbers are known."""
    if not LINUX or platform.machine() not in AUDIT_ARCHITECTURES:
        return False
    try:
        prctl(PR_GET_SECCOMP)
    except OSError:
        return False
    return True


def instructions(machine: str) -> list[Instruction]:
    """Build the filter: refused calls answer EPERM, clone3 ENOSYS (libc then uses clone, whose flags can be seen)."""
    column = list(AUDIT_ARCHITECTURES).index(machine)
    refused = [numbers[column] for numbers in CALLS.values()]
    # From the end: allow, refuse, unknown call. Each jump says how far away its target is.
    program = [
        Instruction(RETURN, 0, 0, ALLOW),
        Instruction(RETURN, 0, 0, ERRNO | errno.EPERM),
        Instruction(RETURN, 0, 0, ERRNO | errno.ENOSYS),
    ]

    def prepend(code: int, value: int, when_true: int | None = None, when_false: int | None = None) -> None:
        """Put an instruction in front; a target is the index of an instruction counted from the end."""
        at = len(program)
        skips = [0 if target is None else at - 1 - target for target in (when_true, when_false)]
        program.append(Instruction(code, *skips, value))

    allow, refuse, unknown = 0, 1, 2
    prepend(JUMP_ANY_BIT, NEW_NAMESPACES, refuse, allow)
    prepend(LOAD, OFFSET_FIRST_ARGUMENT)
    flags = len(program) - 1
    prepend(JUMP_EQUAL, CLONE[column], flags, allow)
    prepend(JUMP_EQUAL, CLONE3[column], unknown)
    for number in refused:
        prepend(JUMP_EQUAL, number, refuse)
    if machine == "x86_64":
        prepend(JUMP_AT_LEAST, X32_CALLS, refuse)
    prepend(LOAD, OFFSET_NUMBER)
    number_check = len(program) - 1
    prepend(JUMP_EQUAL, AUDIT_ARCHITECTURES[machine], number_check, refuse)
    prepend(LOAD, OFFSET_ARCHITECTURE)
    return program[::-1]


def enforce() -> None:
    """Install the filter for this process and what it starts, for good. Needs no_new_privs. Raises OSError."""
    program = instructions(platform.machine())
    memory = (Instruction * len(program))(*program)
    prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(Program(len(program), memory)))
