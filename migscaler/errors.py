"""Every exception of migscaler, as one tree; the class says what to do.

MigscalerError
+-- ConfigError             fix the configuration file (carries every finding)
+-- ParseError              fix the text that was given (a spec, a duration, a profile name)
+-- CommandRefused          the request can't be served now; the message says why and what to do
+-- NotFound                what was named is not there
+-- HardwareError           pin that GPU, back off, try again next tick
|   +-- NvmlError           one NVML call answered with an error code
|   |   +-- InUse                   someone holds it: keep it, put back what was taken
|   |   |   +-- HeldByProcess           the NVML worker saw who, and did not even ask the driver
|   |   +-- InsufficientResources   plan again from what is really there
|   |   +-- NoPermission            ask the operator (root or the mig/config capability)
|   |   +-- NotSupported            this GPU or driver can't; leave the value out
|   |   +-- GpuLost                 stop touching that GPU
|   |   +-- DriverGone              driver not loaded or upgraded underneath: start the worker anew
|   +-- DeadlineExceeded    a call did not answer in time; its worker was abandoned
|   +-- ForeignAnswer       the driver answered something the catalog can't explain
+-- StoreError              changes stop, exporting goes on
|   +-- StoreUnwritable     the journal can't be written (full disk, read-only)
|   +-- StoreDamaged        the file is not what it should be; ask the operator
+-- DaemonSilent            no daemon answers; start one, or use the hardware directly
+-- NodeLocked              another daemon or `apply` holds the node
+-- AddressTaken            fix web.listen or web.unix_socket, or stop whoever listens there
+-- PlanningFailed          a bug or a solver fault: hold
"""

from dataclasses import dataclass


class MigscalerError(Exception):
    """Root of all errors that migscaler raises on purpose."""


class ParseError(MigscalerError):
    """A text given by a person or a file can't be read; the message says how to mend it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong in a configuration file.

    `line` and `column` count from 1, None where the place is not known; `where` is the dotted
    path of the key, `remedy` says what to write instead.
    """

    where: str
    problem: str
    remedy: str
    line: int | None = None
    column: int | None = None

    @property
    def found(self) -> str:
        """Return where and what it is, in one line."""
        place = "" if self.line is None else f"line {self.line}: "
        return f"{place}{self.where}: {self.problem}"


class ConfigError(MigscalerError):
    """A configuration can't be used; `findings` holds every reason at once."""

    def __init__(self, source: str, findings: tuple[Finding, ...]) -> None:
        """Keep where it came from (`source`, a file name) and all findings, in file order."""
        super().__init__(f"{source}: {len(findings)} problem(s)")
        self.source = source
        self.findings = findings


class CommandRefused(MigscalerError):
    """A command can't be carried out in the present state; nothing was changed."""


class NotFound(MigscalerError):
    """What a command named does not exist."""


class HardwareError(MigscalerError):
    """Reading or changing a GPU failed; that GPU is pinned until it answers again."""


class NvmlError(HardwareError):
    """One NVML call answered with an error.

    `function` is the C name of the call, `code` the nvmlReturn_t value (nvml.h), `code_name` its
    constant without the prefix, e.g. "IN_USE".
    """

    def __init__(self, function: str, code: int, code_name: str) -> None:
        """Keep the call and its answer."""
        super().__init__(f"{function} answered {code_name} ({code})")
        self.function = function
        self.code = code
        self.code_name = code_name

    def __reduce__(self) -> tuple[type["NvmlError"], tuple[str, int, str]]:
        """Pickle by the three fields, so that the error crosses the worker's pipe whole."""
        return (type(self), (self.function, self.code, self.code_name))


class InUse(NvmlError):
    """A client holds the object (NVML IN_USE); an expected outcome of a destroy."""


class HeldByProcess(InUse):
    """A privileged NVML worker saw a process on the object and did not make the call."""

    def __init__(self, function: str, holder: str) -> None:
        """Keep the call that was not made, and who holds the object, in words."""
        super().__init__(function, 19, "IN_USE")
        self.holder = holder

    def __str__(self) -> str:
        """Return the call and the holder."""
        return f"{self.function} was not called: {self.holder}"

    def __reduce__(self) -> tuple[type["HeldByProcess"], tuple[str, str]]:  # type: ignore[override] # other fields
        """Pickle by the two fields."""
        return (type(self), (self.function, self.holder))


class InsufficientResources(NvmlError):
    """No room, or that placement is occupied (NVML INSUFFICIENT_RESOURCES)."""


class NoPermission(NvmlError):
    """The process may not do this (NVML NO_PERMISSION)."""


class NotSupported(NvmlError):
    """This GPU, mode or driver does not offer the call (NOT_SUPPORTED, FUNCTION_NOT_FOUND)."""


class GpuLost(NvmlError):
    """The GPU fell off the bus or answers UNKNOWN; it must not be touched."""


class DriverGone(NvmlError):
    """No driver, or another driver version than the library's; a new process is needed."""

    def __str__(self) -> str:
        """Return the call, its answer and what an operator can do."""
        remedies = {
            "LIBRARY_NOT_FOUND": "libnvidia-ml.so.1 is not here; install the NVIDIA driver",
            "DRIVER_NOT_LOADED": "load the NVIDIA kernel driver (modprobe nvidia)",
            "LIB_RM_VERSION_MISMATCH": "the driver was upgraded underneath; reload it or reboot",
        }
        remedy = remedies.get(self.code_name)
        return f"{super().__str__()}: {remedy}" if remedy else super().__str__()


class DeadlineExceeded(HardwareError):
    """A request to the NVML worker did not answer within `seconds`; the worker was abandoned."""

    def __init__(self, request: str, seconds: float) -> None:
        """Keep the request's name and the deadline it missed."""
        super().__init__(f"{request} did not answer within {seconds:g} s")
        self.request = request
        self.seconds = seconds

    def __reduce__(self) -> tuple[type["DeadlineExceeded"], tuple[str, float]]:
        """Pickle by the two fields."""
        return (type(self), (self.request, self.seconds))


class ForeignAnswer(HardwareError):
    """The driver answered something that can't be fitted to what is known of the GPU."""


class StoreError(MigscalerError):
    """The state file can't be used; changes stop, exporting goes on."""


class StoreUnwritable(StoreError):
    """The state file can't be written durably (full or read-only disk)."""


class StoreDamaged(StoreError):
    """The state file is corrupt or from a newer version; it is left as it is."""


class DaemonSilent(MigscalerError):
    """No daemon answers on its socket."""


class NodeLocked(MigscalerError):
    """Another migscaler process holds this node's lock."""


class AddressTaken(MigscalerError):
    """An address can't be listened on; the message says which, why, and what to change."""


class PlanningFailed(MigscalerError):
    """The planner could not finish; the tick ends in a hold."""
