"""What every test shares: how long and how reproducibly Hypothesis searches."""

import os

from hypothesis import HealthCheck, settings

# Derandomized: one commit, one verdict. `make soak` draws afresh and prints what fails.
settings.register_profile("quick", deadline=None, derandomize=True, print_blob=True)
settings.register_profile(
    "soak",
    deadline=None,
    max_examples=2_000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("MIGSCALER_TEST_PROFILE", "quick"))
