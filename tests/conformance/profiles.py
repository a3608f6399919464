"""How many examples the properties are tried on.

A few hundred in an ordinary run; 20,000 each where the environment variable POSTBOX_PROPERTIES says ``fuzz``.
"""

from __future__ import annotations

import os

import hypothesis
import pytest

__all__ = ["FUZZING", "few", "many", "patient"]

FUZZING = os.environ.get("POSTBOX_PROPERTIES") == "fuzz"

_ANYHOW = [
    hypothesis.HealthCheck.too_slow,
    hypothesis.HealthCheck.data_too_large,
    hypothesis.HealthCheck.large_base_example,
]


def _settings(ordinarily: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=20_000 if FUZZING else ordinarily, database=None, deadline=None, suppress_health_check=_ANYHOW
    )


many = _settings(400)
few = _settings(150)
"""For properties whose every example is a whole message."""

patient = pytest.mark.timeout(7200 if FUZZING else 120)
