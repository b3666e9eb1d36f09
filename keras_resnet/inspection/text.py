"""What was found, as text for a terminal."""

from keras_resnet.inspection.findings import LEFT_OUT, Finding
from keras_resnet.inspection.inspection import Inspection
from keras_resnet.printing import printable

_EXAMPLES = 3


def describe(found: Inspection, kinds: tuple[str, ...] = LEFT_OUT) -> str:
    """The findings as a table and some examples of each.

    Args:
        found: by `inspect_images`.
        kinds: the findings whose files are left out.
    """
    lines = [f"data    {printable(found.layout)}", f"images  {_sizes(found)}"]
    if found.judged:
        lines.append(f"labels  {printable(found.judged)}")
    if not found.findings:
        return "\n".join([*lines, "", "nothing to mend was found"])
    rows = [("finding", "groups", "files", "left out", "")]
    for one in found.findings:
        left_out = len(found.files_to_leave_out([one.kind])) if one.kind in kinds else 0
        grouped = any(len(group) > 1 for group in one.groups)
        groups = f"{len(one.groups):,}" if grouped else ""
        rows.append((one.kind, groups, f"{len(one.items):,}", f"{left_out:,}", one.meaning))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines.append("")
    for kind, *counts, meaning in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(counts, widths[1:], strict=True)]
        lines.append("  ".join([f"{kind:<{widths[0]}}", *cells, meaning]).rstrip())
    for one in found.findings:
        lines += ["", *_examples(one)]
    return "\n".join(lines)


def _sizes(found: Inspection) -> str:
    parts = [f"{split} {sum(counts.values()):,}" for split, counts in found.classes.items()]
    return f"{found.images:,} ({printable(', '.join(parts))})"


def _examples(finding: Finding) -> list[str]:
    lines = [f"{finding.kind}:"]
    for group in finding.groups[:_EXAMPLES]:
        for place, item in enumerate(group[:_EXAMPLES]):
            mark = "-" if place == 0 else " "
            what = item.path or f"{item.split}, class {item.label}"
            # Of a problem that is a sentence with the file for its subject, as of the others.
            lines.append(f"  {mark} {printable(what)}  {printable(item.note)}".rstrip())
        if len(group) > _EXAMPLES:
            lines.append(f"    and {len(group) - _EXAMPLES:,} more like it")
    if len(finding.groups) > _EXAMPLES:
        lines.append(f"  and {len(finding.groups) - _EXAMPLES:,} more")
    return lines
