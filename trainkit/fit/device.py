"""What `auto` means on this machine: device, threads, precision. Runtime once, recorded, reused by later attempts."""

from __future__ import annotations

import copy
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

# Seconds of imports that the first optimizer step and use_deterministic_algorithms would do: a process that is
# forked after this import starts training at once.
import torch._dynamo
import torch._inductor.config
from torch import Tensor, nn

from trainkit.spec import JobSpec
from trainkit.spec.models import image_model
from trainkit.version import installed_versions

WORTH_THREADS_SECONDS = 4e-3
"""Training steps shorter than this never gain from a second thread: starting and joining it costs more."""
CLEAR_GAIN = 1.2
"""More threads must be this much faster, in every round, to be chosen; a tie or noise means 1."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The choices of one job, the same for all of its attempts."""

    device: str
    threads: int
    precision: str
    compile: bool
    channels_last: bool
    deterministic: bool
    versions: dict[str, str] = field(default_factory=dict)
    batched: bool = False
    """Whether it was trained with other trials as one model, this time or in an attempt before."""

    @property
    def resume_exact(self) -> bool:
        """Whether a resumed run gives the same bits as an uninterrupted one."""
        return self.inexact_because is None

    @property
    def inexact_because(self) -> str | None:
        """What keeps a resumed run from giving the same bits; None on a CPU in deterministic mode."""
        if self.device != "cpu":
            return f"on {self.device} sums may run in another order each time"
        if self.batched:
            return "trained with others as one model it is equal up to rounding"
        return None if self.deterministic else "train.deterministic is off"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def versions() -> dict[str, str]:
    """What, besides spec and seed, decides the bits."""
    return {
        **installed_versions(),
        "torch": str(torch.__version__),  # with the build's suffix, which the package metadata lacks
        "machine": platform.machine(),
    }


def on_one_core(*, parameters: int = 0, threads: int = 1, libraries: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The runtime of a job without a training loop: nothing to choose. `libraries`: versions of further ones."""
    runtime = Runtime("cpu", threads, "float32", False, False, True, {**versions(), **(libraries or {})})
    size = {"parameters": parameters, "trainable": 0, "phases": []}
    return {**runtime.as_dict(), **size, "resume_exact": runtime.resume_exact}


def choose_device(name: str) -> torch.device:
    """`auto`: a CUDA device, else MPS, else the CPU. Raises RuntimeError when a named one is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return _ready_cuda(0)
        return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError(f"device {name} was asked for, and this machine has no usable CUDA device")
    if name == "mps" and not torch.backends.mps.is_available():
        raise RuntimeError("device mps was asked for, and this machine has none")
    device = torch.device(name)
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            raise RuntimeError(f"device {name} was asked for, and this machine has {torch.cuda.device_count()} of CUDA")
        return _ready_cuda(device.index or 0)
    return device


def _ready_cuda(index: int) -> torch.device:
    # cuBLAS reads this when its first handle is made, so it has to stand before anything is computed there.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda", index)


def choose_runtime(
    spec: JobSpec, device: torch.device, network: nn.Module, step: Callable[[nn.Module], None], steps: int
) -> Runtime:
    """Settle what the spec leaves to `auto`. `step` does one training step on a copy of the network it is given."""
    train, cuda = spec.train, device.type == "cuda"
    convolutional = image_model(spec.model) is not None
    if train.precision == "auto":
        # Small dense layers are bound by launches, not arithmetic: bfloat16 casts would only add kernels there.
        precision = "bfloat16" if cuda and convolutional and torch.cuda.is_bf16_supported() else "float32"
    else:
        precision = train.precision
    threads = train.threads
    if threads == "auto":
        threads = 1 if device.type != "cpu" else calibrate_threads(network, step, steps)
    layout = train.channels_last
    if layout == "auto":
        layout = cuda and convolutional and precision == "bfloat16"
    return Runtime(
        device=str(device),
        threads=int(threads),
        precision=precision,
        compile=train.compile is True and can_compile(device),
        channels_last=bool(layout),
        deterministic=train.deterministic,
        versions=versions(),
    )


def can_compile(device: torch.device) -> bool:
    """torch.compile writes C++ for the CPU, and needs a compiler to build it; on a GPU Triton comes with torch."""
    return device.type == "cuda" or any(map(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++"))))


def reuse_runtime(runtime: Mapping[str, Any]) -> Runtime:
    """The choices of an earlier attempt; versions are this process's own."""
    names = Runtime.__dataclass_fields__.keys()
    return Runtime(**{**{name: runtime[name] for name in names if name in runtime}, "versions": versions()})


def calibrate_threads(network: nn.Module, step: Callable[[nn.Module], None], steps: int) -> int:
    """1, or all cores where they are clearly faster on this very network and batch.

    Beside any busy process a second thread can be many times slower than none (spinning barriers), hence the margin.
    """
    cores = available_cores()
    if cores == 1 or steps < 50:
        return 1
    before = torch.get_num_threads()
    trial = copy.deepcopy(network)
    try:
        torch.set_num_threads(1)
        step(trial)
        single = _seconds(step, trial)
        if single < WORTH_THREADS_SECONDS:
            return 1
        for _ in range(3):
            torch.set_num_threads(cores)
            step(trial)
            many = min(_seconds(step, trial) for _ in range(2))
            torch.set_num_threads(1)
            single = min(_seconds(step, trial) for _ in range(2))
            if single < CLEAR_GAIN * many:
                return 1
        return cores
    finally:
        torch.set_num_threads(before)


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def machine(runtime: Runtime, seed: int) -> Iterator[None]:
    """Threads, determinism and the global generator for one run; all put back as they were afterwards."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # its switch is a property of the module, unknown to type checkers
    fill = memory.fill_uninitialized_memory
    matmul, benchmark = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    cuda = runtime.device.startswith("cuda")
    devices = [torch.device(runtime.device)] if cuda else []
    with torch.random.fork_rng(devices=devices):
        try:
            torch.set_num_threads(runtime.threads)
            # On the CPU every operation used here is deterministic; some of torchvision's on CUDA are not: warn there.
            torch.use_deterministic_algorithms(runtime.deterministic, warn_only=True)
            memory.fill_uninitialized_memory = False
            torch.backends.cudnn.benchmark = cuda and not runtime.deterministic
            if cuda:
                torch.set_float32_matmul_precision("high")
            torch.manual_seed(seed)
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)
            memory.fill_uninitialized_memory = fill
            torch.backends.cudnn.benchmark = benchmark
            torch.set_float32_matmul_precision(matmul)


def autocast(runtime: Runtime) -> AbstractContextManager[Any]:
    """bfloat16 in the forward pass where the runtime says so (no loss scaling needed); else nothing."""
    if runtime.precision != "bfloat16":
        return nullcontext()
    return torch.autocast(torch.device(runtime.device).type, torch.bfloat16)


def forward_of(network: nn.Module, runtime: Runtime, *, compiled: bool = True) -> Callable[..., Tensor]:
    """(x, side_input) -> raw outputs of the network, in the runtime's precision and memory format."""
    run: Callable[..., Tensor] = torch.compile(network) if runtime.compile and compiled else network
    if runtime.precision == "float32" and not runtime.channels_last:
        return run

    def forward(x: Tensor, side_input: Tensor | None) -> Tensor:
        with autocast(runtime):
            return run(in_memory_format(x, runtime), side_input)

    return forward


def in_memory_format(x: Tensor, runtime: Runtime) -> Tensor:
    """Image batches in the runtime's memory format."""
    return x.contiguous(memory_format=torch.channels_last) if runtime.channels_last and x.ndim == 4 else x


def _seconds(step: Callable[[nn.Module], None], network: nn.Module) -> float:
    begun = time.perf_counter()
    step(network)
    return time.perf_counter() - begun
