"""Make one reading of the node from the answers of its GPUs, one of which may not come."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from migscaler.errors import DriverGone, HardwareError
from migscaler.model.gpu import Gap, GpuReading, NodeReading
from migscaler.model.ids import GpuUuid


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a pass begins with."""

    taken_at: datetime
    taken_monotonic: float
    gpu_count: int
    driver_version: str | None
    nvml_version: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuAnswer:
    """One GPU's part of a pass."""

    reading: GpuReading


Ask = Callable[[int, GpuUuid | None], GpuAnswer]
"""Reads the GPU of an index; the second argument is its UUID where known from before."""


class RollCall:
    """Remembers who was there, so that a GPU which does not answer is still listed."""

    def __init__(self) -> None:
        self._known: dict[GpuUuid, GpuReading] = {}
        self._at: dict[int, GpuUuid] = {}
        self._count = 0

    def read(self, facts: NodeFacts, ask: Ask) -> NodeReading:
        """Ask every GPU; one that raises is listed with its gap.

        Raises:
            DriverGone: NVML as a whole has gone.
        """
        if facts.gpu_count != self._count:
            # Indices may have moved; whom they mean is learnt anew.
            self._at.clear()
            self._count = facts.gpu_count
        gpus: list[GpuReading] = []
        gaps: list[Gap] = []
        for index in range(facts.gpu_count):
            uuid = self._at.get(index)
            try:
                answer = ask(index, uuid)
            except DriverGone:
                raise
            except HardwareError as error:
                if uuid is None:
                    gaps.append(Gap(what="gpu", why=f"GPU {index}: {error}"))
                else:
                    gpus.append(self._absent(uuid, str(error)))
                continue
            self._note(index, answer.reading)
            gpus.append(answer.reading)
        seen = {gpu.uuid for gpu in gpus}
        gone = "the driver lists it no longer"
        gpus += [self._absent(uuid, gone) for uuid in self._known if uuid not in seen]
        return NodeReading(
            taken_at=facts.taken_at,
            taken_monotonic=facts.taken_monotonic,
            driver_version=facts.driver_version,
            nvml_version=facts.nvml_version,
            gpus=tuple(sorted(gpus, key=lambda gpu: (gpu.index, gpu.uuid))),
            gaps=tuple(gaps),
        )

    def _note(self, index: int, reading: GpuReading) -> None:
        self._at[index] = reading.uuid
        self._known[reading.uuid] = GpuReading(
            index=index,
            uuid=reading.uuid,
            name=reading.name,
            pci_bus_id=reading.pci_bus_id,
            serial=reading.serial,
            minor=reading.minor,
        )

    def _absent(self, uuid: GpuUuid, why: str) -> GpuReading:
        return replace(self._known[uuid], gaps=(Gap(what="gpu", why=why),))
