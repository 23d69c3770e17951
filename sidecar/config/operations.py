"""Operations: when the service is healthy, who looks at it, and who changes it."""

from __future__ import annotations

from pydantic import Field

from sidecar.config.group import Group
from sidecar.config.settings_values import Duration, Folders


class Operations(Group):
    """The settings of it."""

    health_window: Duration = Field(
        60.0,
        gt=0,
        description=(
            "Of how much time the outcomes count that say whether the service is healthy "
            "(docs/operations.md)."
        ),
    )
    health_min_events: int = Field(
        5, ge=1, description="Fewer outcomes than these within that time say nothing."
    )
    health_max_timeout_ratio: float = Field(
        0.5, ge=0, le=1, description="Where more of them than this came too late, it is not."
    )
    health_min_success_ratio: float = Field(
        0.5, ge=0, le=1, description="Where fewer of them than this went well, it is not."
    )
    health_errors: bool | None = Field(
        None,
        description=(
            "Whether '/health' answers 500 while the service is not healthy. If unset: where gRPC "
            "is served; hosts of the sidecar take anything but 200 for its end."
        ),
    )
    admin: bool = Field(
        False,
        description=(
            "Whether models can be loaded and exchanged at '/admin/…' by who has a token with the "
            "scope 'admin' (docs/operations.md)."
        ),
    )
    admin_model_roots: Folders = Field(
        (), description="Folders from which models may be loaded there; none if unset."
    )
    metrics_open: bool = Field(
        False,
        description=(
            "Whether '/metrics', '/metrics.json' and '/system' are answered without a token where "
            "one is asked for elsewhere."
        ),
    )
    metrics_owners: bool = Field(
        False,
        description=(
            "Whether the metrics have the live sessions of each owner, by name: personal data, and "
            "a label for each."
        ),
    )
