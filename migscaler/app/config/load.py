"""Find, read, check and compile a configuration file: all or nothing, all findings at once."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from migscaler.app.config.compile import compile_config
from migscaler.app.config.findings import finding_at, findings_of, keys_at
from migscaler.app.config.model import Config
from migscaler.app.config.references import problems_between
from migscaler.app.config.settings import Settings
from migscaler.app.config.unforeseen import unforeseen
from migscaler.app.config.yaml_text import Document, read_yaml
from migscaler.app.config.yaml_text import Path as YamlPath
from migscaler.errors import ConfigError, Finding
from migscaler.model.policy import Policy
from migscaler.sources.prometheus import shows_data

SYSTEM_FILE = Path("/etc/migscaler/migscaler.yaml")
MAX_BYTES = 1024 * 1024
"""A fleet's file with hundreds of lines is some 50 kB; a larger one is another file given by
mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedConfig:
    """A configuration that passed every check.

    `source` is the file's name, `sha256` of its text. `warnings` are what is allowed and surely not
    meant. `document` keeps the places, for warnings against the hardware.
    """

    config: Config
    policy: Policy
    settings: Settings
    text: str
    sha256: str
    source: str
    document: Document
    warnings: tuple[Finding, ...] = ()


def find_file(explicit: Path | None, environment: Mapping[str, str]) -> Path | None:
    """Return the file to load, None if there is none anywhere.

    The first of: the one given (`--config`), $MIGSCALER_CONFIG, then where it exists
    $XDG_CONFIG_HOME/migscaler/migscaler.yaml (~/.config) and /etc/migscaler/migscaler.yaml. One
    that was named is returned even if it is missing, so that a typing mistake is an error. The
    working directory is not searched: a root daemon must not take its rules from where it was
    started.
    """
    if explicit is not None:
        return explicit
    named = environment.get("MIGSCALER_CONFIG")
    if named:
        return Path(named)
    home = environment.get("XDG_CONFIG_HOME") or environment.get("HOME", "") + "/.config"
    own = Path(home) / "migscaler" / "migscaler.yaml"
    if own.is_absolute() and _is_there(own, unseen=False):
        return own
    return SYSTEM_FILE if _is_there(SYSTEM_FILE, unseen=True) else None


def _is_there(path: Path, *, unseen: bool) -> bool:
    """Say whether a file is there; `unseen` where this account may not even look.

    Somebody else's $HOME (`setpriv` keeps it) holds no file of this account. The system's file is
    meant for it: that it can't be seen has to be told, or all of it would count as absent.
    """
    try:
        return path.exists()
    except OSError:
        return unseen


def load_file(path: Path) -> LoadedConfig:
    """Load a configuration file.

    Raises:
        ConfigError: it can't be read or is wrong; carries every finding in file order.
    """
    return load_text(file_text(path, "config/migscaler.yaml"), str(path))


def file_text(path: Path, example: str) -> str:
    """Return the text of a configuration file.

    Raises:
        ConfigError: it can't be read, is no UTF-8 or larger than any real one; the remedy names
            where an example is.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ConfigError(
                str(path), (_whole("is larger than 1 MiB", f"give a file like {example}"),)
            )
        return raw.decode("utf-8-sig")
    except OSError as error:
        remedy = f"check the path and its permissions, or write a file (see {example})"
        raise ConfigError(
            str(path), (_whole(f"can't be read: {error.strerror}", remedy),)
        ) from error
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start})"
        raise ConfigError(str(path), (_whole(problem, "save it as UTF-8"),)) from error


def load_text(text: str, source_name: str) -> LoadedConfig:
    """Check and compile a configuration.

    Raises:
        ConfigError: it is wrong; carries every finding in file order. Nothing else is raised for
            what a file holds: also what no check foresaw is one finding.
    """
    try:
        return _loaded(text, source_name)
    except ConfigError:
        raise
    except Exception as error:
        # A fault of a check, not of the file. It must neither end the daemon at its start nor pass
        # a reload by: the last good file counts, and metrics, page and log tell.
        raise ConfigError(source_name, (unforeseen(error, text),)) from error


def _loaded(text: str, source_name: str) -> LoadedConfig:
    """Check and compile a configuration; a check that fails itself raises whatever it met.

    Raises:
        ConfigError: as `load_text`.
    """
    document = read_yaml(text)
    findings = list(document.findings)
    config = None
    if document.value is not None or not findings:
        config, wrong = _checked(document)
        findings = joined(findings, wrong)
    if findings or config is None:
        raise ConfigError(source_name, in_file_order(findings))
    compiled = compile_config(config)
    return LoadedConfig(
        config=config,
        policy=compiled.policy,
        settings=compiled.settings,
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        source=source_name,
        document=document,
        warnings=tuple(_doubts(config, document)),
    )


def joined(text: list[Finding], values: list[Finding]) -> list[Finding]:
    """Return findings about the text and about its values, without saying a thing twice.

    What the text itself makes doubtful is not reported again as a value of the wrong kind.
    """
    doubtful = {(f.line, f.where) for f in text}
    return text + [f for f in values if (f.line, f.where) not in doubtful]


def in_file_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return each finding once, sorted by place."""
    placed = sorted(findings, key=lambda f: (f.line or 0, f.column or 0, f.where))
    return tuple(dict.fromkeys(placed))


def effective_yaml(loaded: LoadedConfig) -> str:
    """Return the configuration with every default written out; loads to the same meaning."""
    values = loaded.config.model_dump(mode="json", by_alias=True)
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    return text


def _checked(document: Document) -> tuple[Config | None, list[Finding]]:
    """Return the file as pydantic reads it (None if wrong), and what is wrong in it."""
    if not isinstance(document.value, Mapping):
        problem = "the file is not a mapping of keys"
        return None, [
            finding_at(document, (), problem, "write key: value lines, e.g. mode: observe")
        ]
    findings: list[Finding] = []
    config = None
    value = without_nulls(document.value)
    try:
        config = Config.model_validate(value)
    except ValidationError as error:
        findings += findings_of(error, document)
    for path, problem, remedy in problems_between(value):
        findings.append(finding_at(document, path, problem, remedy))
    return config, findings


def without_nulls(value: object, root: type[BaseModel] = Config, path: YamlPath = ()) -> object:
    """Return the values without known keys that are null: `rules:` alone is what comments leave."""
    if isinstance(value, tuple):
        return tuple(without_nulls(item, root, (*path, n)) for n, item in enumerate(value))
    if not isinstance(value, Mapping):
        return value
    known = keys_at(path, root)
    kept = ((key, inner) for key, inner in value.items() if inner is not None or key not in known)
    return {key: without_nulls(inner, root, (*path, key)) for key, inner in kept}


def _doubts(config: Config, document: Document) -> list[Finding]:
    """Return what is allowed and surely not meant."""
    doubts = []
    used = {name for rule in config.rules for name in rule.from_}
    for name in config.sources:
        if name not in used and name != "scheduler":
            remedy = "add it to the from: of a rule, or remove it"
            doubts.append(
                finding_at(document, ("sources", name), f"no rule uses source {name!r}", remedy)
            )
    for number, rule in enumerate(config.rules):
        if rule.reserve_after is not None:
            where = ("rules", number, "reserve_after")
            doubts.append(
                finding_at(
                    document,
                    where,
                    "no reservation is made yet",
                    "remove it, or leave it for later",
                )
            )
    for number, veto in enumerate(config.veto):
        if veto.alive is None and shows_data(veto.query) is None and "bool" not in veto.query:
            problem = "an empty answer of this veto is unknown, and unknown forbids every change"
            doubts.append(finding_at(document, ("veto", number, "query"), problem, "add alive:"))
    if config.rules and not config.gpus:
        remedy = 'name them, e.g. gpus: [{model: "NVIDIA A100*"}]'
        doubts.append(
            finding_at(document, ("rules",), "there are rules, but no GPU is managed", remedy)
        )
    if _blinds_dcgm(config):
        problem = "dcgm-exporter sees no new instance until it is restarted, and nothing does that"
        remedy = 'e.g. hooks: {after_change: [["systemctl", "restart", "dcgm-exporter"]]}'
        doubts.append(finding_at(document, ("activity",), problem, remedy))
    return doubts


def _blinds_dcgm(config: Config) -> bool:
    """Say whether changes make activity unknown for good: from DCGM, with no hook to tell it."""
    from_dcgm = config.activity.dcgm is not None or config.activity.prometheus is not None
    changes = "enforce" in {line.mode or config.mode for line in config.gpus}
    return from_dcgm and changes and not config.hooks.after_change


def _whole(problem: str, remedy: str) -> Finding:
    """Return a finding about the whole file."""
    return Finding(where="(file)", problem=problem, remedy=remedy)
