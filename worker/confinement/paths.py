"""The files that every training, reading and predicting process needs: interpreter, libraries, devices."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
"""Programs and libraries; a compiler for torch.compile is among them."""
SYSTEM_PATTERNS = ("opt/cuda*", "opt/nvidia*", "opt/rocm*", "opt/intel*")
SETTINGS = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload", "alternatives", "localtime", "timezone", "fonts"),
    *("passwd", "group", "nsswitch.conf", "locale.conf", "default/locale", "mime.types", "os-release", "lsb-release"),
    *("OpenCL", "nvidia", "nvidia-container-runtime", "gai.conf", "hosts", "host.conf"),
)
"""Below /etc; neither keys nor hashes of passwords."""
KERNEL = ("/proc", "/sys")
"""To read. Landlock itself refuses the environment and the memory of processes outside."""
PLAIN_DEVICES = ("null", "zero", "full", "random", "urandom")
GPU_DEVICES = ("nvidia*", "nvidia-caps/*", "dri/*", "kfd", "dxg", "nvmap", "nvhost*")
SHARED_MEMORY = Path("/dev/shm")


@cache
def programs() -> tuple[Path, ...]:
    """Return folders to read and to run from: the system's and the interpreter's."""
    found = [Path(name) for name in SYSTEM]
    found += [path for pattern in SYSTEM_PATTERNS for path in Path("/").glob(pattern)]
    found += [Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), Path(sys.executable).resolve().parent]
    for name in ("CUDA_HOME", "CUDA_PATH", "ROCM_PATH"):
        found += [Path(os.environ[name])] if os.environ.get(name) else []
    found += [Path(entry) for entry in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if entry]
    return _existing(found)


@cache
def sources() -> tuple[Path, ...]:
    """Return files and folders to read: the imported packages, wherever they are installed, and some of /etc.

    Not the folders that they lie in, which may hold anything else: a service's home beside the packages it runs.
    """
    found = [str(Path("/etc", name)) for name in SETTINGS]
    found += [entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    for name, module in list(sys.modules.items()):
        if "." not in name:
            found += getattr(module, "__path__", ()) or filter(None, [getattr(module, "__file__", None)])
    granted = tuple(f"{folder}/" for folder in programs())
    return _existing(Path(entry) for entry in dict.fromkeys(found) if not entry.startswith(granted))


def search_folders(scratch: Path) -> tuple[Path, ...]:
    """Return the folders that Python looks for packages in: their names may be listed, their files not read.

    Not one that holds the scratch folder: the names of other jobs would be listed with it.
    """
    folders = (Path(entry).absolute() for entry in sys.path)
    return _existing(folder for folder in folders if not scratch.is_relative_to(folder))


def kernel_folders() -> tuple[Path, ...]:
    """Return what of the kernel's file systems may be read."""
    return tuple(Path(name) for name in KERNEL)


def plain_devices() -> tuple[Path, ...]:
    """Return devices that give and take bytes."""
    return tuple(Path("/dev", name) for name in PLAIN_DEVICES)


def gpu_devices() -> tuple[Path, ...]:
    """Return the device files of GPUs; new ones may appear while a worker runs."""
    return tuple(path for pattern in GPU_DEVICES for path in Path("/dev").glob(pattern))


def exposed(secret: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Return (path, folder) of each path that lies in a folder which every job may read: it belongs elsewhere."""
    readable = (*programs(), *sources())
    return [(path, folder) for path in secret for folder in readable if _is_below(path.absolute(), (folder,))]


def _existing(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(path.absolute() for path in paths if path.exists()))


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
