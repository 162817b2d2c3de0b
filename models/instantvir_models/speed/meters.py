"""What a run took of the machine: memory of the process and of a card, energy, CPU time."""

import importlib
import os
import platform
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

_PROCESS = Path("/proc/self")


class MemoryMeter:
    """The most memory that was in use since this was made.

    Linux forgets its high-water mark when asked; elsewhere the mark is that of the process so far, and
    a later point of a sweep cannot show less than an earlier one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with suppress(OSError):
            (_PROCESS / "clear_refs").write_text("5")
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    @property
    def peak_mb(self) -> float | None:
        """Resident memory of the process in MiB; None where the system does not say."""
        with suppress(OSError):
            for line in (_PROCESS / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 2**10
        try:
            import resource
        except ImportError:
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if platform.system() == "Darwin" else 2**10)

    @property
    def peak_device_mb(self) -> float | None:
        """Most that tensors took on a card at once, in MiB; None on the CPU."""
        if self._device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self._device) / 2**20


class EnergyMeter:
    """The energy of a card since this was made, as NVML counts it (needs `instantvir[energy]`).

    All that the card does is counted, whoever asked for it.
    """

    def __init__(self, device: torch.device) -> None:
        self._card = _card(device)
        self._before = self._millijoules()

    @property
    def joules(self) -> float | None:
        """None where NVML, or the card, does not say."""
        now = self._millijoules()
        return None if now is None or self._before is None else (now - self._before) / 1000

    def _millijoules(self) -> int | None:
        if self._card is None:
            return None
        nvml, handle = self._card
        try:
            return int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except nvml.NVMLError:
            return None


def _card(device: torch.device) -> tuple[Any, Any] | None:
    """NVML and its handle of a card, which it counts otherwise than CUDA does."""
    if device.type != "cuda":
        return None
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        return nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except nvml.NVMLError:
        return None


class CpuMeter:
    """CPU seconds of this process, all its threads together, since this was made."""

    def __init__(self) -> None:
        self._before = time.process_time()

    @property
    def seconds(self) -> float:
        return time.process_time() - self._before


def load_average() -> float | None:
    """Processes that wanted a core over the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def device_name(device: torch.device) -> str:
    """What a person calls it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def hardware() -> dict[str, Any]:
    """The machine and the versions that a speed belongs to."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if "model name" in line), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": version("av"),
        "numpy": np.__version__,
    }
