"""NVML functions about a GPU as a whole: identity, power, clocks, heat, ECC, field values."""

from collections.abc import Callable

from migscaler.sim.arguments import Argument, Filled, give_text, number, require_version, target
from migscaler.sim.codes import Answered, Code
from migscaler.sim.core import driver_branch
from migscaler.sim.session import Session
from migscaler.sim.state import GpuState
from migscaler.sim.symbols import Symbol
from migscaler.sim.telemetry import energy_mj, gpu_activity, power_mw, temperature_celsius

_DOUBLE, _UINT, _ULONGLONG = 0, 1, 3  # NVML_VALUE_TYPE_*
_CLOCK_LIMIT_MHZ = {0: 1410, 1: 1410, 2: 1593, 3: 1275}  # graphics, SM, memory, video; A100's
_BRAND_NVIDIA = 14
_DRAM, _SRAM = 2, 7  # nvmlMemoryLocation_t


def name(session: Session, handle: Argument, buffer: Argument, length: Argument) -> int:
    """Answer nvmlDeviceGetName; of a MIG device `NVIDIA A100-SXM4-40GB MIG 1g.5gb`."""
    gpu, gi, ci = session.any_device(handle)
    words = gpu.name
    if gi is not None and ci is not None:
        whole = session.node.rules(gpu).by_id[gi.profile_id].compute_slices == ci.size
        words += f" MIG {gi.profile if whole else f'{ci.size}c.{gi.profile}'}"
    give_text(buffer, length, words)
    return Code.SUCCESS


def uuid(session: Session, handle: Argument, buffer: Argument, length: Argument) -> int:
    """Answer nvmlDeviceGetUUID, of GPUs and MIG devices."""
    gpu, gi, ci = session.any_device(handle)
    if gi is None or ci is None:
        give_text(buffer, length, gpu.uuid)
    else:
        give_text(buffer, length, session.node.mig_uuid(gpu, gi.id, ci.id))
    return Code.SUCCESS


def index(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetIndex, of GPUs and MIG devices."""
    gpu, _, ci = session.any_device(handle)
    target(out).value = gpu.index if ci is None else ci.mig_index
    return Code.SUCCESS


def serial(session: Session, handle: Argument, buffer: Argument, length: Argument) -> int:
    """Answer nvmlDeviceGetSerial."""
    give_text(buffer, length, session.device(handle).serial)
    return Code.SUCCESS


def pci_info(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetPciInfo_v3."""
    gpu = session.device(handle)
    info = target(out)
    domain, bus, _ = gpu.bus_id.split(":")
    info.busId = gpu.bus_id.encode()
    info.busIdLegacy = f"{domain[4:]}:{bus}:00.0".encode()
    info.domain, info.bus, info.device = int(domain, 16), int(bus, 16), 0
    ids = session.node.rules(gpu).board.pci_device_ids
    info.pciDeviceId = int(ids[0], 16) if ids else 0
    return Code.SUCCESS


def compute_capability(session: Session, handle: Argument, major: Argument, minor: Argument) -> int:
    """Answer nvmlDeviceGetCudaComputeCapability."""
    gpu, _, _ = session.any_device(handle)
    board = session.node.rules(gpu).board
    first, _, second = (board.compute_capability or f"{board.nvml_arch}.0").partition(".")
    target(major).value, target(minor).value = int(first), int(second)
    return Code.SUCCESS


def temperature_v(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetTemperatureV."""
    info = target(out)
    require_version(info, 1)
    gpu = session.device(handle)
    if info.sensorType != 0:
        return Code.INVALID_ARGUMENT
    info.temperature = temperature_celsius(gpu)
    return Code.SUCCESS


def temperature(session: Session, handle: Argument, sensor: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetTemperature."""
    gpu = session.device(handle)
    if number(sensor) != 0:
        return Code.INVALID_ARGUMENT
    target(out).value = temperature_celsius(gpu)
    return Code.SUCCESS


def clock(session: Session, handle: Argument, kind: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetClockInfo: low when idle."""
    gpu = session.device(handle)
    limit = _CLOCK_LIMIT_MHZ.get(number(kind))
    if limit is None:
        return Code.INVALID_ARGUMENT
    busy = number(kind) == 2 or gpu_activity(gpu) > 0
    target(out).value = limit if busy else 210
    return Code.SUCCESS


def max_clock(session: Session, handle: Argument, kind: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetMaxClockInfo."""
    session.device(handle)
    limit = _CLOCK_LIMIT_MHZ.get(number(kind))
    if limit is None:
        return Code.INVALID_ARGUMENT
    target(out).value = limit
    return Code.SUCCESS


def utilization(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetUtilizationRates: NOT_SUPPORTED once MIG is on."""
    gpu, gi, _ = session.any_device(handle)
    if gi is not None or gpu.mig_current:
        return Code.NOT_SUPPORTED
    info = target(out)
    info.gpu = round(100 * gpu_activity(gpu))
    info.memory = round(40 * gpu_activity(gpu))
    return Code.SUCCESS


def engine_utilization(
    session: Session, handle: Argument, percent: Argument, period: Argument
) -> int:
    """Answer nvmlDeviceGetEncoderUtilization and Decoder: only without MIG."""
    gpu, gi, _ = session.any_device(handle)
    if gi is not None or gpu.mig_current:
        return Code.NOT_SUPPORTED
    target(percent).value, target(period).value = 0, 167_000
    return Code.SUCCESS


def ecc_mode(session: Session, handle: Argument, current: Argument, pending: Argument) -> int:
    """Answer nvmlDeviceGetEccMode: on."""
    session.device(handle)
    target(current).value = target(pending).value = 1
    return Code.SUCCESS


def ecc_errors(
    session: Session, handle: Argument, kind: Argument, counter: Argument, out: Argument
) -> int:
    """Answer nvmlDeviceGetTotalEccErrors: kind 0 corrected, 1 not; MIG devices: only 1."""
    gpu, gi, _ = session.any_device(handle)
    wanted = number(kind)
    if wanted not in (0, 1) or number(counter) not in (0, 1):
        return Code.INVALID_ARGUMENT
    if gi is not None:
        if wanted == 0 or number(counter) == 1:
            return Code.NOT_SUPPORTED
        target(out).value = 0
        return Code.SUCCESS
    target(out).value = gpu.ecc_uncorrected if wanted else gpu.ecc_corrected
    return Code.SUCCESS


def memory_errors(
    session: Session,
    handle: Argument,
    kind: Argument,
    counter: Argument,
    location: Argument,
    out: Argument,
) -> int:
    """Answer nvmlDeviceGetMemoryErrorCounter; per instance only SRAM."""
    gpu, gi, _ = session.any_device(handle)
    wanted = (number(kind), number(counter), number(location))
    if gi is not None:
        if wanted != (1, 0, _SRAM):
            return Code.NOT_SUPPORTED
        target(out).value = 0
        return Code.SUCCESS
    if wanted[2] not in (_DRAM, _SRAM):
        return Code.NOT_SUPPORTED
    errors = gpu.ecc_uncorrected if wanted[0] else gpu.ecc_corrected
    target(out).value = errors if wanted[2] == _SRAM else 0
    return Code.SUCCESS


def pcie_throughput(session: Session, handle: Argument, counter: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetPcieThroughput in KB/s; whole GPUs only."""
    gpu, gi, _ = session.any_device(handle)
    if gi is not None:
        return Code.NOT_SUPPORTED
    if number(counter) not in (0, 1):
        return Code.INVALID_ARGUMENT
    target(out).value = int(2_000_000 * gpu_activity(gpu))
    return Code.SUCCESS


def fan_speed(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetFanSpeed: data center boards have no fan."""
    session.any_device(handle)
    return Code.NOT_SUPPORTED


def process_utilization(
    session: Session, handle: Argument, array: Argument, count: Argument, since: Argument
) -> int:
    """Answer nvmlDeviceGetProcessUtilization: no samples; NOT_SUPPORTED once MIG is on."""
    gpu, gi, _ = session.any_device(handle)
    if gi is not None or gpu.mig_current:
        return Code.NOT_SUPPORTED
    target(count).value = 0
    return Code.NOT_FOUND


def remapped_rows(
    session: Session,
    handle: Argument,
    corrected: Argument,
    uncorrected: Argument,
    pending: Argument,
    failed: Argument,
) -> int:
    """Answer nvmlDeviceGetRemappedRows: NOT_SUPPORTED while instances are there."""
    gpu = session.device(handle)
    if gpu.instances:
        return Code.NOT_SUPPORTED
    target(corrected).value = target(uncorrected).value = target(failed).value = 0
    target(pending).value = int(gpu.remap_pending)
    return Code.SUCCESS


def field_values(session: Session, handle: Argument, count: Argument, values: Argument) -> int:
    """Answer nvmlDeviceGetFieldValues: each with its own answer; unknown fields NOT_SUPPORTED."""
    gpu, gi, _ = session.any_device(handle)
    array = target(values)
    for slot in range(number(count)):
        entry = array[slot]
        entry.timestamp = int(session.node.clock() * 1e6)
        entry.nvmlReturn = int(_field(session, gpu, entry) if gi is None else Code.NOT_SUPPORTED)
    return Code.SUCCESS


def _field(session: Session, gpu: GpuState, entry: Filled) -> Code:
    """Answer one field."""
    board = session.node.rules(gpu).board
    now = session.node.clock()
    branch = driver_branch(session.driver)
    known: dict[int, Callable[[], int]] = {
        83: lambda: energy_mj(gpu, now),
        185: lambda: power_mw(gpu),
        186: lambda: power_mw(gpu),
        189: lambda: gpu.power_limit_mw,
        190: lambda: gpu.power_limit_mw,
    }
    if branch >= 525:
        known[184] = lambda: int(not board.mode_change_needs_reset)
    if branch >= 535:
        known[199] = lambda: int(branch >= 550)
    figure = known.get(entry.fieldId)
    if figure is None:
        return Code.NOT_SUPPORTED
    entry.valueType = _ULONGLONG if entry.fieldId == 83 else _UINT
    entry.value.ullVal = figure()
    return Code.SUCCESS


def _gives(figure: Callable[[Session, GpuState], int]) -> Callable[..., int]:
    """Return a function that writes one number of a GPU; MIG devices answer NOT_SUPPORTED."""

    def body(session: Session, handle: Argument, out: Argument) -> int:
        gpu, gi, _ = session.any_device(handle)
        if gi is not None:
            return Code.NOT_SUPPORTED
        target(out).value = figure(session, gpu)
        return Code.SUCCESS

    return body


def _needs_mig_off(figure: int) -> Callable[[Session, GpuState], int]:
    """Return a constant that needs MIG mode off (compute mode wants a MIG handle)."""

    def value(session: Session, gpu: GpuState) -> int:
        if gpu.mig_current:
            raise Answered(Code.NOT_SUPPORTED)
        return figure

    return value


def _constant(figure: int) -> Callable[..., int]:
    return _gives(lambda session, gpu: figure)


def symbols() -> dict[str, Symbol]:
    """Return the functions of this module by C name."""
    device = "nvmlDeviceGet"
    limit = _gives(lambda session, gpu: gpu.power_limit_mw)
    return {
        f"{device}Name": Symbol(name),
        f"{device}UUID": Symbol(uuid),
        f"{device}Index": Symbol(index),
        f"{device}Serial": Symbol(serial),
        f"{device}MinorNumber": Symbol(_gives(lambda session, gpu: gpu.minor)),
        f"{device}Brand": Symbol(_constant(_BRAND_NVIDIA)),
        f"{device}PersistenceMode": Symbol(_constant(1)),
        f"{device}VirtualizationMode": Symbol(_gives(lambda s, gpu: 2 * s.node.state.vgpu_guest)),
        f"{device}Architecture": Symbol(
            _gives(lambda session, gpu: session.node.rules(gpu).board.nvml_arch)
        ),
        f"{device}CudaComputeCapability": Symbol(compute_capability),
        f"{device}PciInfo_v3": Symbol(pci_info),
        f"{device}PowerUsage": Symbol(_gives(lambda session, gpu: power_mw(gpu))),
        f"{device}PowerManagementLimit": Symbol(limit),
        f"{device}PowerManagementDefaultLimit": Symbol(limit),
        f"{device}EnforcedPowerLimit": Symbol(limit),
        f"{device}TotalEnergyConsumption": Symbol(
            _gives(lambda session, gpu: energy_mj(gpu, session.node.clock()))
        ),
        f"{device}Temperature": Symbol(temperature),
        f"{device}TemperatureV": Symbol(temperature_v, since=570),
        f"{device}ClockInfo": Symbol(clock),
        f"{device}MaxClockInfo": Symbol(max_clock),
        f"{device}PerformanceState": Symbol(_constant(0)),
        f"{device}ComputeMode": Symbol(_gives(_needs_mig_off(0))),
        f"{device}DisplayMode": Symbol(_constant(0)),
        f"{device}DisplayActive": Symbol(_constant(0)),
        f"{device}UtilizationRates": Symbol(utilization),
        f"{device}EncoderUtilization": Symbol(engine_utilization),
        f"{device}DecoderUtilization": Symbol(engine_utilization),
        f"{device}EccMode": Symbol(ecc_mode),
        f"{device}TotalEccErrors": Symbol(ecc_errors),
        f"{device}MemoryErrorCounter": Symbol(memory_errors),
        f"{device}PcieThroughput": Symbol(pcie_throughput),
        f"{device}FanSpeed": Symbol(fan_speed),
        f"{device}ProcessUtilization": Symbol(process_utilization),
        f"{device}RemappedRows": Symbol(remapped_rows),
        f"{device}FieldValues": Symbol(field_values),
    }
