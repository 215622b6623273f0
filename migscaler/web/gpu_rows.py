"""The page's picture: one row per GPU with its strip of memory slices, and the same as a table."""

from datetime import timedelta

from migscaler.model.gpu import GpuReading, GpuState, InstanceState
from migscaler.model.policy import Mode
from migscaler.model.status import Status
from migscaler.policy.discretion import told
from migscaler.policy.words import span_text
from migscaler.web.html import Markup, tag
from migscaler.web.strip import PIN_WORDS, Cell, cells_of, in_words, planned_cells
from migscaler.web.views import mode_of, wanted_layout
from migscaler.web.words import count_of, evidence_words, unseen_words

_LEGEND_SIZES = (("1", "1g"), ("2", "2g"), ("3", "3g"), ("4", "4g"), ("7", "7g"))
_LEGEND_KINDS = (
    ("used", "in use"),
    ("kept", "kept"),
    ("idle", "idle"),
    ("free", "free"),
    ("stranded", "stranded"),
)


def gpu_section(status: Status, *, trusted: bool) -> Markup:
    """Return the section of all GPUs; who is on an instance only to trusted callers."""
    gpus = () if status.snapshot is None else status.snapshot.gpus
    rows = [_row(status, gpu) for gpu in gpus]
    nothing = tag("p", "No GPU has been read yet.", class_="quiet")
    return tag(
        "section",
        tag("div", tag("h2", "GPUs"), _legend(), class_="heading", data_part="legend"),
        *(rows or [nothing]),
        _table(status, trusted=trusted) if gpus else "",
        class_="gpus",
        aria_label="GPUs",
    )


def _legend() -> Markup:
    sizes = [
        tag("li", tag("span", class_=f"key used g{number}"), name) for number, name in _LEGEND_SIZES
    ]
    kinds = [
        tag("li", tag("span", class_=f"key {kind} g0"), words) for kind, words in _LEGEND_KINDS
    ]
    return tag("ul", *sizes, *kinds, class_="legend", aria_label="Legend")


def _row(status: Status, gpu: GpuState) -> Markup:
    """Return one GPU: name, strip, figures."""
    index = gpu.reading.index
    return tag(
        "article",
        _name(gpu, mode_of(status, gpu)),
        tag("div", *_strips(status, gpu), class_="strips"),
        _figures(status, gpu),
        class_="gpu",
        data_part=f"gpu-{index}",
        aria_label=f"GPU {index}",
    )


def _name(gpu: GpuState, mode: Mode | None) -> Markup:
    model = gpu.reading.name.removeprefix("NVIDIA ")
    badge = "not managed" if mode is None else mode.value
    return tag(
        "header",
        tag("h3", f"GPU {gpu.reading.index}"),
        tag("span", badge, class_=f"badge {'none' if mode is None else mode.value}"),
        tag("p", model, class_="model"),
        _evidence(gpu.reading) if gpu.reading.mig_enabled else "",
        class_="name",
    )


def _evidence(reading: GpuReading) -> Markup:
    """Return where activity comes from in a word; in full what idleness rests on."""
    source = reading.activity_source
    problem = unseen_words(reading)
    words = "no activity figures" if source is None else f"activity by {source.value.upper()}"
    if problem is not None:
        words += ", not of all instances"
    full = f"Idleness rests on {evidence_words(reading)}" + (f"; {problem}" if problem else "")
    return tag("p", words, class_="model", title=full)


def _strips(status: Status, gpu: GpuState) -> list[Markup]:
    """Return the strip, and below it the wanted one if it differs."""
    reading, running = gpu.reading, status.running
    if running is not None and running.gpu_uuid == gpu.uuid and reading.model is not None:
        words = f"GPU {reading.index} is being changed from {running.before} to {running.after}"
        return [strip_box(planned_cells(reading.model, running.after), words, "strip changing")]
    cells = cells_of(gpu)
    if not cells:
        return [tag("p", _instead(gpu), class_="strip bare")]
    strips = [strip_box(cells, f"GPU {reading.index}: {in_words(cells)}", "strip")]
    if reading.mig_enabled and reading.mig_pending is False:
        strips.append(tag("p", "MIG goes off at the next reset", class_="wanted"))
    wanted = wanted_layout(status, gpu)
    if wanted is not None and reading.model is not None:
        planned = planned_cells(reading.model, wanted)
        strips.append(strip_box(planned, f"Wanted for GPU {reading.index}: {wanted}", "strip next"))
        strips.append(tag("p", f"wanted: {wanted}", class_="wanted"))
    return strips


def _instead(gpu: GpuState) -> str:
    """Return what to say where there is no strip."""
    reading = gpu.reading
    broken = next((gap.why for gap in reading.gaps if gap.what == "gpu"), gpu.excluded)
    if broken is not None:
        return f"does not answer: {told(broken, names=False)}"  # `migscaler status` names it
    if reading.mig_enabled is None:
        return "can't be partitioned"
    if not reading.mig_enabled:
        pending = "; MIG goes on at the next reset" if reading.mig_pending else ""
        busy = reading.gauges.utilization_ratio
        return f"MIG is off{pending}" + ("" if busy is None else f"; whole GPU {busy:.0%} busy")
    return "layout not known"


def strip_box(cells: tuple[Cell, ...], words: str, class_: str) -> Markup:
    """Return a strip of cells; `words` say it to those who don't see it."""
    slices = sum(cell.size for cell in cells)
    return tag(
        "div", *map(_cell, cells), class_=f"{class_} m{slices}", role="img", aria_label=words
    )


def _cell(cell: Cell) -> Markup:
    """Return one cell; position and width are classes, so that no inline style is needed."""
    class_ = f"cell {cell.kind} g{cell.compute_slices} c{cell.start} w{cell.size}"
    what = f"{cell.profile}@{cell.start}: {cell.words}" if cell.profile else cell.words
    size, plus, attributes = cell.size_class.partition("+")
    name = tag("b", size, tag("wbr"), plus + attributes) if plus else tag("b", size)
    return tag("div", name, tag("i", cell.words), class_=class_, title=what)


def _figures(status: Status, gpu: GpuState) -> Markup:
    """Return the few numbers beside the strip."""
    reading, gauges = gpu.reading, gpu.reading.gauges
    first = ""
    if status.running is not None and status.running.gpu_uuid == gpu.uuid:
        first = "changing now"
    elif cells_of(gpu) and gpu.instances is not None:
        used = sum(cell.kind == "used" for cell in cells_of(gpu))
        first = f"{used} of {len(gpu.instances)} in use" if gpu.instances else "empty"
    elif reading.processes is not None and not reading.mig_enabled:
        first = count_of(len(reading.processes), "process", "processes")
    power = None if gauges.power_watts is None else f"{gauges.power_watts:.0f} W"
    warm = None if gauges.temperature_celsius is None else f"{gauges.temperature_celsius:.0f} °C"
    second = " · ".join(text for text in (power, warm) if text is not None)
    return tag("p", tag("span", first), tag("small", second), class_="figures")


def _table(status: Status, *, trusted: bool) -> Markup:
    """Return every instance as a table, for those who'd rather read."""
    head = ["GPU", "Instance", "State", "Memory used", "Busy", "Quiet for", "MIG UUID"]
    if trusted:
        head.append("Who is on it")
    rows = [
        tag("tr", *(tag("td", text) for text in line))
        for gpu in (() if status.snapshot is None else status.snapshot.gpus)
        for line in _lines(status, gpu, trusted=trusted)
    ]
    table = tag(
        "table",
        tag("thead", tag("tr", *(tag("th", text, scope="col") for text in head))),
        tag("tbody", *rows),
    )
    summary = tag("summary", "All instances as a table")
    return tag(
        "details", summary, tag("div", table, class_="scroll"), data_part="table", id="table"
    )


def _lines(status: Status, gpu: GpuState, *, trusted: bool) -> list[tuple[str, ...]]:
    running = status.running
    if gpu.uuid in status.withheld or (running is not None and running.gpu_uuid == gpu.uuid):
        return []
    lines: list[tuple[str, ...]] = []
    for one in gpu.instances or ():
        reading, activity = one.reading, one.reading.activity
        busy = None if activity is None else activity.busiest
        used = reading.memory_used_bytes
        line = (
            str(gpu.reading.index),
            str(one.spec),
            "idle" if one.pin is None else PIN_WORDS[one.pin],
            "" if used is None else f"{used / 2**20:,.0f} MiB",
            "" if busy is None else f"{busy:.0%}",
            _quiet_words(status, one),
            reading.instance.mig_uuid or "",
        )
        lines.append((*line, _who(one)) if trusted else line)
    return lines


def _quiet_words(status: Status, one: InstanceState) -> str:
    """Return for how long nothing has run on an instance, as `status --sort quiet` does."""
    held, quiet = one.held_unused_since_monotonic, one.quiet_since_monotonic
    since = quiet if held is None else held
    at = None if status.snapshot is None else status.snapshot.wall_time(since)
    return "" if at is None else span_text(max(status.now - at, timedelta()))


def _who(one: InstanceState) -> str:
    """Return whose an instance is and what runs on it."""
    owner = [] if one.claim is None else [one.claim.named]
    running = [str(process) for process in one.reading.processes or ()]
    return ", ".join([*owner, *running])
