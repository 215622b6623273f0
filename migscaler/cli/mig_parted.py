"""Reads what mig-parted reads and writes: its configuration, and its checkpoints.

Facts about the formats are from NVIDIA/mig-parted: api/spec/v1 (configuration, YAML or JSON, keys
checked by case), api/checkpoint/v1 and pkg/types/mig_state.go (JSON, keys read in any case, as Go
does: older versions wrote `ProfileId`, newer ones `ProfileID`). A checkpoint's profile ids are
NVML's enums (pkg/mig/state/state.go walks them), not the ids that create calls take.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from migscaler.app.config.yaml_text import Document, Path, path_text, read_yaml
from migscaler.errors import ConfigError, Finding

VERSION = "v1"
# Far above the 8 of any GPU in the catalog.
_MOST_SLICES = 64
_CHECK = "compare the file with mig-parted's examples"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a configuration: which GPUs, and what they are to have.

    `devices` are indices, None: all. `device_ids` are PCI device over vendor id (0x20B010DE),
    empty: any. `boards` are filters that name boards too, which can't be told apart here. `counts`
    are (profile name, how many); `path` is where it stands in the file.
    """

    devices: tuple[int, ...] | None
    device_ids: frozenset[int]
    boards: tuple[str, ...]
    enabled: bool
    counts: tuple[tuple[str, int], ...]
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedInstance:
    """A GPU instance of a checkpoint; profiles are NVML's enums, placement in memory slices."""

    profile_enum: int
    start: int
    size: int
    compute_profiles: tuple[int, ...]
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedGpu:
    """One GPU of a checkpoint."""

    uuid: str
    enabled: bool
    instances: tuple[SavedInstance, ...]
    path: Path


@dataclass(frozen=True, slots=True)
class MigPartedFile:
    """A file of mig-parted's: named configurations, or a checkpoint."""

    source: str
    document: Document
    configs: Mapping[str, tuple[Entry, ...]] | None = None
    saved: tuple[SavedGpu, ...] | None = None

    def refuse(self, path: Path, problem: str, remedy: str) -> NoReturn:
        """Refuse the file for something at a place.

        Raises:
            ConfigError: always.
        """
        raise self.refusal(path, problem, remedy)

    def refusal(self, path: Path, problem: str, remedy: str) -> ConfigError:
        """Return the error for something at a place."""
        place = self.document.place(path)
        finding = Finding(
            where=path_text(path),
            problem=problem,
            remedy=remedy,
            line=place.line if place else None,
            column=place.column if place else None,
        )
        return ConfigError(self.source, (finding,))

    def selected(self, name: str | None) -> tuple[Entry, ...]:
        """Return the configuration of that name; without one, the only one there is.

        Raises:
            ConfigError: there is none of that name, or several and no name.
        """
        known = self.configs or {}
        names = ", ".join(sorted(known))
        if name is None and len(known) > 1:
            self.refuse(("mig-configs",), "several configurations", f"choose by --name: {names}")
        found = known.get(next(iter(known)) if name is None else name)
        if found is None:
            self.refuse(("mig-configs",), f"no configuration {name!r}", f"there are: {names}")
        return found


def read_mig_parted(source: str, text: str) -> MigPartedFile:
    """Read a configuration or a checkpoint.

    Raises:
        ConfigError: it is neither; the one finding says where, what, and what to do.
    """
    document = read_yaml(text)
    file = MigPartedFile(source, document)
    if document.findings:
        raise ConfigError(source, document.findings[:1])
    if not isinstance(document.value, dict):
        file.refuse((), "not a mapping", _CHECK)
    keys = {key.lower() for key in document.value}
    if "migstate" in keys:
        return MigPartedFile(source, document, saved=_Checkpoint(file).read())
    if "mig-configs" in keys:
        return MigPartedFile(source, document, configs=_Config(file).read())
    raise file.refusal(
        (),
        "neither a configuration (mig-configs) nor a checkpoint (MigState) of mig-parted",
        "make one with: nvidia-mig-parted export, or nvidia-mig-parted checkpoint",
    )


class _Reading:
    """Takes values of the right kind out of a document, or refuses the file."""

    def __init__(self, file: MigPartedFile) -> None:
        self.file = file

    def mapping(self, value: object, path: Path) -> dict[str, object]:
        """Return a mapping."""
        if not isinstance(value, dict):
            self.file.refuse(path, "not a mapping", _CHECK)
        return value

    def items(self, value: object, path: Path) -> tuple[object, ...]:
        """Return a list."""
        if not isinstance(value, tuple):
            self.file.refuse(path, "not a list", _CHECK)
        return value

    def whole(self, value: object, path: Path) -> int:
        """Return a whole number, not negative."""
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.file.refuse(path, f"{value!r} is not a whole number", "write 0, 1, 2, ...")
        return value

    def version(self, value: object, path: Path) -> None:
        """Refuse another version than ours."""
        if value != VERSION:
            self.file.refuse(path, f"version {value!r} is not known", f"only {VERSION} is")


class _Config(_Reading):
    """Reads a configuration."""

    def read(self) -> dict[str, tuple[Entry, ...]]:
        """Return the configurations by name."""
        whole = self.mapping(self.file.document.value, ())
        self._only(whole, ("version", "mig-configs"), ())
        self.version(whole.get("version"), ("version",))
        configs = self.mapping(whole["mig-configs"], ("mig-configs",))
        if not configs:
            self.file.refuse(("mig-configs",), "no configuration in it", "write at least one")
        return {name: self._entries(name, value) for name, value in configs.items()}

    def _entries(self, name: str, value: object) -> tuple[Entry, ...]:
        path = ("mig-configs", name)
        entries = self.items(value, path)
        if not entries:
            self.file.refuse(path, "it has no entry", "write at least one")
        return tuple(self._entry(one, (*path, number)) for number, one in enumerate(entries))

    def _entry(self, value: object, path: Path) -> Entry:
        entry = self.mapping(value, path)
        self._only(entry, ("devices", "device-filter", "mig-enabled", "mig-devices"), path)
        for key in ("devices", "mig-enabled"):
            if key not in entry:
                self.file.refuse(path, f"{key} is missing", f"add it: {_EXAMPLES[key]}")
        enabled = entry["mig-enabled"]
        if not isinstance(enabled, bool):
            self.file.refuse((*path, "mig-enabled"), f"{enabled!r}", "write true or false")
        counts = self._counts(entry.get("mig-devices"), (*path, "mig-devices"))
        if enabled and "mig-devices" not in entry:
            self.file.refuse(path, "mig-devices is missing", "add it, or {} for no instances")
        if not enabled and counts:
            where = (*path, "mig-devices")
            self.file.refuse(where, "instances with mig-enabled: false", "choose one of the two")
        where = (*path, "device-filter")
        filters = self._filters(entry.get("device-filter"), where)
        return Entry(
            devices=self._devices(entry["devices"], (*path, "devices")),
            device_ids=frozenset(self._device_id(one, where) for one in filters),
            boards=tuple(one for one in filters if isinstance(one, str) and ":" in one),
            enabled=enabled,
            counts=counts,
            path=path,
        )

    def _only(self, value: Mapping[str, object], known: tuple[str, ...], path: Path) -> None:
        for key in value:
            if key not in known:
                self.file.refuse((*path, key), "mig-parted has no such key", "take it out")

    def _devices(self, value: object, path: Path) -> tuple[int, ...] | None:
        if value == "all":
            return None
        if isinstance(value, str):
            self.file.refuse(path, f"{value!r}", f"write {_EXAMPLES['devices']}")
        numbered = enumerate(self.items(value, path))
        return tuple(self.whole(one, (*path, number)) for number, one in numbered)

    def _filters(self, value: object, path: Path) -> tuple[object, ...]:
        if value is None or value == "":
            return ()
        return (value,) if isinstance(value, str) else self.items(value, path)

    def _device_id(self, value: object, path: Path) -> int:
        """Return a device id: device over vendor id; the part after a colon names the board."""
        if not isinstance(value, str):
            self.file.refuse(path, f"{value!r} is not a text", 'write it in quotes: "0x20B010DE"')
        try:
            found = int(value.partition(":")[0], 0)
        except ValueError:
            found = -1
        if not 0 <= found < 1 << 32:
            remedy = 'write device over vendor id: "0x20B010DE"'
            self.file.refuse(path, f"{value!r} is no PCI device id", remedy)
        return found

    def _counts(self, value: object, path: Path) -> tuple[tuple[str, int], ...]:
        counts = {} if value is None else self.mapping(value, path)
        found = [(name, self.whole(count, (*path, name))) for name, count in counts.items()]
        for name, count in found:
            if count > _MOST_SLICES:
                words = f"{count} are more than fit on any GPU"
                self.file.refuse((*path, name), words, "write how many one GPU is to have")
        return tuple((name, count) for name, count in found if count)


_EXAMPLES = {"devices": "all, or a list like [0, 1]", "mig-enabled": "true or false"}


class _Checkpoint(_Reading):
    """Reads a checkpoint."""

    def read(self) -> tuple[SavedGpu, ...]:
        """Return its GPUs."""
        whole, names = self._fields(self.file.document.value, ())
        self.version(whole.get("version"), (names.get("version", "Version"),))
        path: Path = (names["migstate"],)
        state, inner = self._fields(whole["migstate"], path)
        devices = self._list(state, inner, "devices", path)
        return tuple(self._gpu(one, place) for one, place in devices)

    def _gpu(self, value: object, path: Path) -> SavedGpu:
        fields, names = self._fields(value, path)
        uuid = fields.get("uuid")
        if not isinstance(uuid, str) or not uuid:
            self.file.refuse(path, "a GPU without UUID", _CHECK)
        mode = self._number(fields, names, "migmode", path)
        if mode not in (0, 1):
            self.file.refuse((*path, names["migmode"]), f"MIG mode {mode}", "0 is off, 1 is on")
        return SavedGpu(
            uuid=uuid,
            enabled=mode == 1,
            instances=tuple(
                self._instance(one, place)
                for one, place in self._list(fields, names, "gpuinstances", path)
            ),
            path=path,
        )

    def _instance(self, value: object, path: Path) -> SavedInstance:
        fields, names = self._fields(value, path)
        where = (*path, names.get("placement", "Placement"))
        placement, inner = self._fields(fields.get("placement"), where)
        computes = self._list(fields, names, "computeinstances", path)
        return SavedInstance(
            profile_enum=self._number(fields, names, "profileid", path),
            start=self._slices(placement, inner, "start", where),
            size=self._slices(placement, inner, "size", where),
            compute_profiles=tuple(self._compute(one, place) for one, place in computes),
            path=path,
        )

    def _compute(self, value: object, path: Path) -> int:
        fields, names = self._fields(value, path)
        return self._number(fields, names, "profileid", path)

    def _fields(self, value: object, path: Path) -> tuple[dict[str, object], dict[str, str]]:
        """Return a mapping by lower-case key, and how the file writes each key."""
        given = self.mapping(value, path)
        return {k.lower(): v for k, v in given.items()}, {k.lower(): k for k in given}

    def _number(
        self, fields: Mapping[str, object], names: Mapping[str, str], key: str, path: Path
    ) -> int:
        if key not in fields:
            self.file.refuse(path, f"{key} is missing", _CHECK)
        return self.whole(fields[key], (*path, names[key]))

    def _slices(
        self, fields: Mapping[str, object], names: Mapping[str, str], key: str, path: Path
    ) -> int:
        """Return a number of memory slices; checking a layout takes room for each."""
        found = self._number(fields, names, key, path)
        if found > _MOST_SLICES:
            words = f"{found} is past the memory slices of every GPU"
            self.file.refuse((*path, names[key]), words, "make a new checkpoint")
        return found

    def _list(
        self, fields: Mapping[str, object], names: Mapping[str, str], key: str, path: Path
    ) -> list[tuple[object, Path]]:
        """Return the values of a list and their places; null, as Go writes it, is an empty one."""
        if fields.get(key) is None:
            return []
        place = (*path, names[key])
        return [(one, (*place, n)) for n, one in enumerate(self.items(fields[key], place))]
