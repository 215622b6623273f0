"""Questions to NVML about the node and whole GPUs, typed and thin, and about memory and processes.

Each method is one call (two where an old driver lacks the newer form). Every one raises a class of
`NvmlError`.
"""

from typing import Any

from migscaler.errors import NoPermission, NvmlError
from migscaler.hardware.nvml_answers import (
    FUNCTION_NOT_FOUND,
    NOT_A_MIG_ID,
    NOT_SUPPORTED,
    TIMEOUT,
    Device,
    EventSetHandle,
    GpuEvent,
    Memory,
    PciInfo,
    ProcessRow,
)
from migscaler.hardware.nvml_calls import Caller

XID_EVENT = 0x8  # nvmlEventTypeXidCriticalError, nvml.h
CLOCK_SM, CLOCK_MEMORY = 1, 2  # nvmlClockType_t
ECC_CORRECTED, ECC_UNCORRECTED = 0, 1  # nvmlMemoryErrorType_t
_VOLATILE = 0  # nvmlEccCounterType_t: since the driver was loaded
_SRAM = 7  # nvmlMemoryLocation_t: the only place a MIG device reports (nvml.h)
_CORE_SENSOR = 0  # NVML_TEMPERATURE_GPU
_MEMORY_V2 = 0x02000028  # nvmlMemory_v2: struct version and size


class DeviceCalls(Caller):
    """Calls about GPUs as a whole; those named so also work on MIG devices."""

    # Session and node

    def start(self) -> None:
        """Open the NVML session."""
        self._call("nvmlInit")

    def stop(self) -> None:
        """Close the NVML session."""
        self._call("nvmlShutdown")

    def driver_version(self) -> str:
        """Return e.g. `550.54.14`."""
        return str(self._call("nvmlSystemGetDriverVersion"))

    def nvml_version(self) -> str:
        """Return e.g. `12.550.54.14`."""
        return str(self._call("nvmlSystemGetNVMLVersion"))

    def device_count(self) -> int:
        """Return the number of GPUs, MIG devices not counted."""
        return int(self._call("nvmlDeviceGetCount"))

    def device_by_index(self, index: int) -> Device:
        """Return the handle of the GPU of that index."""
        return Device(self._call("nvmlDeviceGetHandleByIndex", index))

    def device_by_uuid(self, uuid: str) -> Device:
        """Return the handle of the GPU or MIG device of that UUID."""
        return Device(self._call("nvmlDeviceGetHandleByUUID", uuid))

    # One GPU or MIG device

    def index(self, device: Device) -> int:
        """Return the GPU's index; it may move at a mode change or driver load."""
        return int(self._call("nvmlDeviceGetIndex", device))

    def uuid(self, device: Device) -> str:
        """Return the UUID of a GPU or MIG device."""
        return str(self._call("nvmlDeviceGetUUID", device))

    def name(self, device: Device) -> str:
        """Return the product name."""
        return str(self._call("nvmlDeviceGetName", device))

    def serial(self, device: Device) -> str:
        """Return the board's serial number."""
        return str(self._call("nvmlDeviceGetSerial", device))

    def minor(self, device: Device) -> int:
        """Return n of /dev/nvidia<n>."""
        return int(self._call("nvmlDeviceGetMinorNumber", device))

    def pci(self, device: Device) -> PciInfo:
        """Return where the GPU is on the bus and what it is there."""
        info = self._call("nvmlDeviceGetPciInfo", device)
        return PciInfo(bus_id=str(info.busId), device_id=int(info.pciDeviceId))

    def architecture(self, device: Device) -> int:
        """Return NVML_DEVICE_ARCH_*: 7 Ampere, 9 Hopper, 10 Blackwell."""
        return int(self._call("nvmlDeviceGetArchitecture", device))

    def virtualization_mode(self, device: Device) -> int:
        """Return NVML_GPU_VIRTUALIZATION_MODE_*: 2 is a vGPU in a guest."""
        return int(self._call("nvmlDeviceGetVirtualizationMode", device))

    def confidential_computing(self) -> bool:
        """Say whether confidential computing is on; a setting of the node, not of one GPU."""
        absent = (NOT_SUPPORTED, FUNCTION_NOT_FOUND)  # Ampere, old drivers: no fault to be counted
        return bool(self._call("nvmlSystemGetConfComputeState", expected=absent).ccFeature)

    def gpm_supported(self, device: Device) -> bool:
        """Say whether the GPU has GPM metrics (Hopper and newer)."""
        return bool(self._call("nvmlGpmQueryDeviceSupport", device).isSupportedDevice)

    def mig_mode(self, device: Device) -> tuple[bool, bool]:
        """Return MIG mode (current, pending); NotSupported where the GPU has none."""
        current, pending = self._call("nvmlDeviceGetMigMode", device)
        return bool(current), bool(pending)

    def set_mig_mode(self, device: Device, *, enabled: bool) -> int:
        """Ask for MIG mode; return the activation status, an nvmlReturn_t of its own."""
        return int(self._call("nvmlDeviceSetMigMode", device, int(enabled)))

    def memory(self, device: Device) -> Memory:
        """Return total and used memory of a GPU, or of a MIG device's GPU instance.

        Below the v2 call, `used` of a whole GPU includes what the driver reserves.
        """

        def ask(*version: int) -> Any:
            return self._call("nvmlDeviceGetMemoryInfo", device, *version)

        got = self._newest("memory", lambda: ask(_MEMORY_V2), ask)
        return Memory(total_bytes=int(got.total), used_bytes=int(got.used))

    def memory_total_bytes(self, device: Device) -> int | None:
        """Return the whole memory; None where MIG mode hides it from the unprivileged."""
        try:
            return self.memory(device).total_bytes
        except NoPermission:
            return None

    def processes(self, device: Device, kind: str) -> tuple[ProcessRow, ...]:
        """Return the processes of a kind (Compute, Graphics, MPSCompute)."""
        name = f"nvmlDeviceGet{kind}RunningProcesses"
        rows = self._newest(
            name,
            lambda: self._call(f"{name}_v3", device),
            lambda: self._call(f"{name}_v2", device),
        )
        return tuple(_process(row) for row in rows)

    def power_milliwatts(self, device: Device) -> int:
        """Return the power drawn now."""
        return int(self._call("nvmlDeviceGetPowerUsage", device))

    def power_limit_milliwatts(self, device: Device) -> int:
        """Return the power limit in force."""
        return int(self._call("nvmlDeviceGetEnforcedPowerLimit", device))

    def temperature_celsius(self, device: Device) -> int:
        """Return the core temperature."""
        return int(self._call("nvmlDeviceGetTemperature", device, _CORE_SENSOR))

    def energy_millijoules(self, device: Device) -> int:
        """Return the energy used since the driver was loaded."""
        return int(self._call("nvmlDeviceGetTotalEnergyConsumption", device))

    def clock_megahertz(self, device: Device, clock: int) -> int:
        """Return the current clock (CLOCK_SM, CLOCK_MEMORY)."""
        return int(self._call("nvmlDeviceGetClockInfo", device, clock))

    def ecc_errors(self, device: Device, kind: int) -> int:
        """Return ECC errors of the whole GPU since the driver was loaded."""
        return int(self._call("nvmlDeviceGetTotalEccErrors", device, kind, _VOLATILE))

    def sram_ecc_errors(self, device: Device) -> int:
        """Return uncorrected SRAM ECC errors since the driver was loaded; works on MIG devices."""
        arguments = (ECC_UNCORRECTED, _VOLATILE, _SRAM)
        return int(self._call("nvmlDeviceGetMemoryErrorCounter", device, *arguments))

    def utilization_percent(self, device: Device) -> tuple[int, int]:
        """Return (GPU, memory) utilization; NotSupported while MIG mode is on."""
        rates = self._call("nvmlDeviceGetUtilizationRates", device)
        return int(rates.gpu), int(rates.memory)

    def new_event_set(self) -> EventSetHandle:
        """Create an event set; the caller frees it."""
        return EventSetHandle(self._call("nvmlEventSetCreate"))

    def free_event_set(self, events: EventSetHandle) -> None:
        """Free an event set."""
        self._call("nvmlEventSetFree", events)

    def watch_xids(self, device: Device, events: EventSetHandle) -> None:
        """Have critical XID errors of a GPU put into the set."""
        self._call("nvmlDeviceRegisterEvents", device, XID_EVENT, events)

    def next_event(self, events: EventSetHandle) -> GpuEvent | None:
        """Return an event that is waiting, None when there is none; never waits itself."""
        try:
            event = self._call("nvmlEventSetWait_v2", events, 0, expected=(TIMEOUT,))
        except NvmlError as error:
            if error.code == TIMEOUT:
                return None
            raise
        return GpuEvent(
            device=Device(event.device), kind=int(event.eventType), data=int(event.eventData)
        )


def _process(row: Any) -> ProcessRow:
    """Decode a process entry."""
    gi_id, ci_id = int(row.gpuInstanceId), int(row.computeInstanceId)
    used = row.usedGpuMemory
    return ProcessRow(
        pid=int(row.pid),
        gi_id=None if gi_id == NOT_A_MIG_ID else gi_id,
        ci_id=None if ci_id == NOT_A_MIG_ID else ci_id,
        used_memory_bytes=None if used is None else int(used),
    )
