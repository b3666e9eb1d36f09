"""A preflight's figures in words."""

from typing import Any

from keras_resnet.preflight.report import Report


def describe(report: Report, measured_input: float | None = None) -> str:
    """Returns the report as text.

    Args:
        report: what to say.
        measured_input: images/s that `benchmark input` measured on a host, if it did.
    """
    figures = report.figures()
    size = f" of {report.image_size} px" if report.image_size else ""
    lines = [
        f"{figures['topology']}, engine {figures['engine']}: chips {figures['chips']}, "
        f"hosts {figures['hosts']}; "
        f"{figures['batch_per_replica']} images per "
        f"replica{size}, {figures['batch_size']:,} in all; {figures['parameters']:,} parameters"
    ]
    if figures["engine"] == "tensorflow":
        lines.append("compiled     one replica by itself; what the slice adds is a formula")
    if figures["note"]:
        lines.append(f"note         {figures['note']}")
    if not figures["compiles"] and figures["reason"] == "compiler":
        return "\n".join([*lines, f"compiles     no: {figures['error']}"])
    lines += _memory(figures)
    if not figures["estimated_cycles"]:
        unknown = "step         not known: jaxlib cannot write down what libtpu has made"
        return "\n".join(
            [*lines, f"compiler     {figures['error']}" if figures["error"] else unknown]
        )
    return "\n".join([*lines, *_speed(report, figures, measured_input), "", *_program(figures)])


def _memory(figures: dict[str, Any]) -> list[str]:
    """Whether it compiles and fits, and what the memory holds."""
    needed, limit = figures["hbm_needed_bytes"], figures["hbm_limit_bytes"]
    size = f"{_gib(needed)} of {_gib(limit)} per replica" if needed else "not known"
    source = "" if figures["hbm_limit_from"] == "compiler" else " (the chip's; not the compiler's)"
    seconds = figures["compile_seconds"]
    compiled = f"yes{f', in {seconds:,.0f} s' if seconds else ''}"
    lines = [
        f"compiles     {compiled if figures['compiles'] else 'no: it needs too much memory'}",
        f"memory       {size}{source}: {'fits' if figures['fits'] else 'does NOT fit'}",
    ]
    if parts := figures["memory"]:
        said = ", ".join(f"{name.replace('_', ' ')} {_gib(part)}" for name, part in parts.items())
        lines.append(f"             {said}")
    return lines


def _speed(report: Report, figures: dict[str, Any], measured_input: float | None) -> list[str]:
    """What a step takes, what bounds it, and what the run takes."""
    chip, reduce = report.topology.chip, figures["all_reduce_seconds_by_formula"]
    lines = [
        f"work         {figures['flops'] / 1e12:.2f} TFLOP, {figures['bytes_accessed'] / 1e9:.1f} "
        f"GB moved, {figures['arithmetic_intensity']:.0f} FLOP a byte (the compiler's count)",
        f"step         {figures['estimated_cycles'] / 1e6:.1f} M cycles, "
        f"{1000 * figures['compiler_seconds']:.1f} ms at {chip.clock / 1e9:g} GHz (estimate)"
        f"{_corrected(figures)}",
        *_roofline(figures["roofline"]),
        f"calibration  {report.calibration.describe()}",
        f"speed        {figures['images_per_second_per_chip']:,.0f} images/s per chip, "
        f"{figures['images_per_second']:,.0f} for the slice (estimates)",
        f"utilization  {figures['model_flop_utilisation']:.1%} of {chip.flops / 1e12:g} TFLOP/s "
        "(model FLOPs, estimate)",
        f"all-reduce   {_all_reduce(figures)}, {1000 * reduce:.2f} ms (by formula, not measured)",
        f"input        every host must deliver {figures['images_per_second_per_host']:,.0f} "
        f"images/s{_against(measured_input, figures['images_per_second_per_host'])}",
    ]
    return [*lines, _run(figures["run"], [figures])] if figures["run"] else lines


def _corrected(figures: dict[str, Any]) -> str:
    """What the correction comes to, and whether the speeds below are by it."""
    seconds = figures["corrected_seconds"]
    if seconds is None:
        return "; no correction fits this program"
    use = "corrected" if figures["calibrated"] else "corrected as on other chips, not used below"
    return f"; {1000 * seconds:.1f} ms {use}"


def _roofline(limits: dict[str, Any] | None) -> list[str]:
    if limits is None:
        return []
    return [
        f"roofline     bound by {limits['bound']}: {limits['hbm_bytes'] / 1e9:.1f} GB of HBM "
        f"traffic take {1000 * limits['bytes_seconds']:.1f} ms at the peak rate, the step "
        f"{limits['step_over_bytes']:.1f} times that; the operations "
        f"{1000 * limits['flops_seconds']:.1f} ms, the step {limits['step_over_flops']:.1f} times"
    ]


def describe_sizes(figures: dict[str, Any]) -> str:
    """Returns lines on the step at each size of a schedule, and on the whole run.

    Args:
        figures: of a `ReportBySize`.
    """
    sizes, run = figures["sizes"], figures["run"]
    lines = ["by size of the images", *(f"  {_size(row)}" for row in sizes)]
    if left := figures["sizes_not_compiled"]:
        named = ", ".join(f"{size} px" for size in left)
        lines.append(f"  {named}: not compiled, as the largest size cannot be trained on")
    return "\n".join([*lines, _run(run, sizes)] if run else lines)


def _size(row: dict[str, Any]) -> str:
    """What one size of a schedule comes to."""
    size = f"{row['image_size']:>4} px"
    if not row["fits"]:
        return f"{size}  {'does not compile' if row['reason'] == 'compiler' else 'does NOT fit'}"
    needed = row["hbm_needed_bytes"]
    memory = f"{_gib(needed)}, fits" if needed else "fits"
    share = f"{row['share']:.0%} of the run"
    if not row["estimated_cycles"]:
        return f"{size}  {share}; {memory}; the step's time is not known"
    if row["steps"] is not None:
        share += f", {row['steps']:,} steps, {row['minutes']:,.1f} minutes"
    source = "corrected" if row["calibrated"] else "by the compiler"
    return (
        f"{size}  {1000 * row['step_seconds']:.1f} ms a step ({source}), "
        f"{row['images_per_second']:,.0f} images/s for the slice, "
        f"{row['images_per_second_per_host']:,.0f} from every host; {share}; {memory}"
    )


def _run(run: dict[str, Any], steps: list[dict[str, Any]]) -> str:
    """What the run takes; `steps` are the figures of its steps, of each size."""
    error = steps[0]["calibration"]["largest_error"]
    calibrated = all(step["calibrated"] for step in steps)
    known = f"off by {abs(error):.0%} at most where checked" if calibrated else "uncalibrated"
    price = run["usd_per_chip_hour"]
    money = f", {run['usd']:,.2f} USD at {price:g} per chip-hour" if price is not None else ""
    return (
        f"run          {run['epochs']} epochs of {run['examples']:,} images, "
        f"{run['steps']:,} steps: {run['minutes']:,.0f} minutes, {run['chip_hours']:,.1f} "
        f"chip-hours{money} (training alone; estimate, {known})"
    )


def _program(figures: dict[str, Any]) -> list[str]:
    """Where the cycles go."""
    return [
        *_shares("kind of instruction", figures["cycles_by_kind"]),
        *_shares("stage of the network", figures["cycles_by_stage"]),
        "",
        "most expensive instructions",
        f"  {'M cycles':>8}  {'MB':>6}  {'kind':<12}  layer",
        *(
            f"  {entry['cycles'] / 1e6:>8.2f}  {entry['hbm_bytes'] / 1e6:>6.0f}  "
            f"{entry['kind']:<12}  {entry['layer'] or entry['op_name'] or entry['name']}"
            f"{' (backward)' if entry['backward'] else ''}"
            for entry in figures["instructions"]
        ),
    ]


def _all_reduce(figures: dict[str, Any]) -> str:
    size = f"{figures['all_reduce_bytes'] / 1e6:.0f} MB"
    if figures["all_reduces"] is None:
        return f"{size} of gradients"
    hidden = figures["all_reduce_hidden_bytes"] / figures["all_reduce_bytes"]
    count = figures["all_reduces"]
    return (
        f"{size} in {count} sum{'s' if count > 1 else ''}, {hidden:.0%} of it behind computation; "
        "what the chips wait for"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _against(measured: float | None, needed: float) -> str:
    if measured is None:
        return "; keras-resnet benchmark input says what one delivers"
    verdict = "enough" if measured >= needed else f"only {measured / needed:.0%} of it"
    return f"; one was measured at {measured:,.0f}: {verdict}"


def _shares(title: str, cycles: dict[str, int]) -> list[str]:
    total = sum(cycles.values())
    parts = [f"{name} {value / total:.0%}" for name, value in cycles.items()]
    return [f"by {title}: {', '.join(parts)}"]
