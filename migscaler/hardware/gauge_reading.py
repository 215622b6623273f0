"""Read the figures of a whole GPU, in base units."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from migscaler.errors import DriverGone, GpuLost, NvmlError
from migscaler.hardware.instance_reading import GpuAccess
from migscaler.hardware.nvml_device_calls import (
    CLOCK_MEMORY,
    CLOCK_SM,
    ECC_CORRECTED,
    ECC_UNCORRECTED,
)
from migscaler.model.gpu import Gap, GpuGauges

T = TypeVar("T")
Xid = tuple[int, datetime]


class GaugeReading:
    """Collects one GPU's figures; what fails becomes one gap, what the GPU lacks nothing."""

    def __init__(self, gpu: GpuAccess) -> None:
        self._gpu = gpu
        self._failures: list[str] = []

    def gaps(self) -> tuple[Gap, ...]:
        """Return what failed, as one gap."""
        return (Gap(what="gauges", why="; ".join(self._failures)),) if self._failures else ()

    def _ask(self, key: str, ask: Callable[[], T]) -> T | None:
        try:
            return self._gpu.facts.offered(self._gpu.uuid, key, ask)
        except (DriverGone, GpuLost):
            raise
        except NvmlError as error:
            self._failures.append(str(error))
            return None

    def read(self, *, mig_enabled: bool, xid: Xid | None) -> GpuGauges:
        """Return the figures; nine or ten calls. Utilization does not exist while MIG is on."""
        calls, device, ask = self._gpu.calls, self._gpu.device, self._ask
        memory = ask("memory", lambda: calls.memory(device))
        energy = ask("energy", lambda: calls.energy_millijoules(device))
        utilization = (
            None if mig_enabled else ask("utilization", lambda: calls.utilization_percent(device))
        )
        return GpuGauges(
            memory_total_bytes=memory.total_bytes if memory else None,
            memory_used_bytes=memory.used_bytes if memory else None,
            power_watts=_scaled(ask("power", lambda: calls.power_milliwatts(device)), 1e-3),
            power_limit_watts=_scaled(
                ask("limit", lambda: calls.power_limit_milliwatts(device)), 1e-3
            ),
            temperature_celsius=_scaled(
                ask("temperature", lambda: calls.temperature_celsius(device)), 1.0
            ),
            energy_joules=_scaled(energy, 1e-3),
            sm_clock_hertz=_scaled(
                ask("sm clock", lambda: calls.clock_megahertz(device, CLOCK_SM)), 1e6
            ),
            memory_clock_hertz=_scaled(
                ask("memory clock", lambda: calls.clock_megahertz(device, CLOCK_MEMORY)), 1e6
            ),
            ecc_corrected=ask("ecc", lambda: calls.ecc_errors(device, ECC_CORRECTED)),
            ecc_uncorrected=ask("ecc un", lambda: calls.ecc_errors(device, ECC_UNCORRECTED)),
            utilization_ratio=_scaled(utilization and utilization[0], 1e-2),
            memory_utilization_ratio=_scaled(utilization and utilization[1], 1e-2),
            last_xid=xid[0] if xid else None,
            last_xid_at=xid[1] if xid else None,
        )


def _scaled(value: int | None, factor: float) -> float | None:
    """Return a figure in base units."""
    return None if value is None else value * factor
