"""What is said where a launch ends."""

from __future__ import annotations

from .commands import shell
from .options import Plan


def what_costs(plan: Plan, delete: list[str]) -> str:
    """Returns what may still cost money, and the command that deletes it."""
    lines = [
        f"run_tpu.sh: {plan.name} in {plan.zone} may still run, and costs money until you delete "
        f"it:\n  {shell(delete)}"
    ]
    if plan.self_delete:
        lines.append(
            f"It deletes itself {plan.self_delete} minutes after training has ended, if its "
            "service account may (docs/tpu.md)."
        )
    lines.append("Training that has started goes on; the same launch command follows it again.")
    return "\n".join(lines)


def advice(kind: str, plan: Plan) -> str:
    """Returns what a call that creates failed for; kind: that of the result."""
    spot = "spot TPUs have a quota of their own" if plan.spot else "so is that of --spot"
    return {
        "quota": f"the project's quota for {plan.type} in {plan.zone} is used up or 0 ({spot}): "
        "https://console.cloud.google.com/iam-admin/quotas",
        "permission": "gcloud may not do that; its message is above",
    }.get(kind, "gcloud failed; its message is above")
