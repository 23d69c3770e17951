"""What every wire calls, whatever its dialect; who asks comes first in every call."""

from sidecar.service.facade import Service
from sidecar.service.health import Health
