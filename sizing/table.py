"""A plan as one table."""

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sizing.measure import SCAN_SAMPLES
from sizing.plan import PACKED_BYTES, STORED_BYTES, Length, Plan, plan
from utils.console import console, count, duration

NO_RATE = "not known: no rate was measured for this run. A run prints its own at the end; give it as plan.rate=<windows a second>"


def show(config: Mapping[str, Any]) -> None:
    """Print the plan of a checked config.

    Args:
        config: plain builtins, the architecture of its checkpoint adopted.
    """
    console().print(table(plan(config)))


def table(found: Plan) -> Panel:
    """What is known before a run starts."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    rows: list[tuple[str, RenderableType]] = [
        ("parameters", Text(_parameters(found))),
        ("products", Text(_products(found))),
        ("memory", Text(_memory(found))),
        ("data", Text(_data(found))),
        ("rate", Text(_rate(found))),
        ("length", _lengths(found)),
        ("reading", Text(_reading(found))),
        ("checkpoints", Text(_checkpoints(found))),
    ]
    for name, what in rows:
        grid.add_row(name, what)
    title = Text(f"Plan of {found.name}: nothing was read, written or trained", style="bold")
    return Panel(grid, title=title, title_align="left", border_style="cyan", expand=False)


def size(number: float) -> str:
    """Bytes in few characters: ``1.3 GB``."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= unit:
            return f"{number / unit:.3g} {name}" if number < 100 * unit else f"{number / unit:.0f} {name}"
    return f"{number / 1e3:.0f} kB"


def _parameters(found: Plan) -> str:
    parts = [part for part in found.step.parts if part.parameters]
    frozen = sum(part.parameters - part.trained for part in parts)
    each = ", ".join(f"{part.part} {count(part.parameters)}" for part in parts)
    return f"{count(sum(part.parameters for part in parts))}: {each}" + (f"; {count(frozen)} frozen" if frozen else "")


def _products(found: Plan) -> str:
    step = found.step
    text = f"{count(step.training)}FLOP a window in training ({count(step.forward)}FLOP forward), matrix products alone"
    if found.rate:
        text += f"; at the rate given {step.training * found.rate / 1e12:.3g} TFLOP/s a device"
    return text + (f"\nscaled up from windows of {SCAN_SAMPLES} samples: sLSTM cells are walked token by token" * found.scaled)


def _memory(found: Plan) -> str:
    step = found.step
    return (
        f"{size(step.memory)} a device with {found.batch} windows, {found.precision}: weights {size(step.weights)}, gradients "
        f"{size(step.gradients)}, optimizer {size(step.optimizer)}, activations {size(step.activations)}\n"
        "eager, without what libraries take and the allocator cannot use; compiled less"
    )


def _data(found: Plan) -> str:
    spec = found.outlook.spec
    known = "an unknown number of" if found.traces is None else f"{found.traces:,}"
    return f"{known} traces to train on ({found.origin})\nwindows of {spec.samples} samples, {spec.samples / spec.rate:.2f} s"


def _rate(found: Plan) -> str:
    return NO_RATE if found.rate is None else f"{found.rate:g} windows a second and device, as given"


def _lengths(found: Plan) -> RenderableType:
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("devices", "windows a step", "steps", "windows", "time"):
        grid.add_column(name, justify="left" if name == "time" else "right")
    for each in found.lengths:
        mark = " (this run)" if each.devices == found.own else ""
        steps, windows = ("?" if number is None else f"{number:,}" for number in (each.steps, each.windows))
        grid.add_row(str(each.devices), f"{found.batch * each.devices:,}", steps, windows, _time(each) + mark)
    return grid


def _time(each: Length) -> str:
    """Time of training alone; without a rate as a function of it."""
    if each.windows is None:
        return "give plan.traces"
    if each.hours is None:
        return f"{each.windows / each.devices / 3600:,.0f} h ÷ rate"
    return duration(each.hours * 3600)


def _reading(found: Plan) -> str:
    if not found.outlook.stored:
        return "none: simulated while training"
    stored, packed = found.reading(STORED_BYTES), found.reading(PACKED_BYTES)
    text = f"{stored / 1e3:.0f} kB a window of float32, {packed / 1e3:.0f} kB packed"
    if found.rate is None:
        return f"{text}: times the rate, for each device"
    every = [f"{each.devices} devices {size(stored * found.rate * each.devices)}/s" for each in found.lengths]
    packed_rate = size(packed * found.rate * found.own)
    return f"{text}\n{', '.join(every)} of float32; this run from packed sets {packed_rate}/s".replace("1 devices", "1 device")


def _checkpoints(found: Plan) -> str:
    total = found.checkpoint * found.checkpoints
    return f"{size(found.checkpoint)} each, at most {found.checkpoints} at a time: {size(total)} free"
