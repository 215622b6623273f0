"""What every test shares: its surroundings, and how long and reproducibly Hypothesis searches."""

import importlib
import os
import pkgutil

from hypothesis import HealthCheck, settings

import migscaler

# Whoever runs the tests may live behind a proxy, or have migscaler configured for the daily work.
# What the tests themselves are told stays.
_STAYS = ("MIGSCALER_TEST_PROFILE", "MIGSCALER_SOAK_MINUTES")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_OTHERS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "SSL_CERT_FILE", "SSL_CERT_DIR", "COLUMNS", "LINES")

for _name in tuple(os.environ):
    _is_ours = _name.startswith("MIGSCALER_") and _name not in _STAYS
    if _is_ours or _name.upper() in _PROXIES or _name in _OTHERS:
        del os.environ[_name]
os.umask(0o022)  # what the tests make is looked at by processes of other accounts

# Hypothesis also tries what it finds in the code that is loaded. All of it is, whatever runs first.
for _module in pkgutil.walk_packages(migscaler.__path__, "migscaler."):
    if not _module.name.endswith("__main__"):
        importlib.import_module(_module.name)

# Derandomized: one commit, one verdict, also on a busy machine. `make soak` draws afresh and prints
# what fails.
_SLOW = [HealthCheck.too_slow]
settings.register_profile(
    "quick", deadline=None, derandomize=True, print_blob=True, suppress_health_check=_SLOW
)
settings.register_profile(
    "soak", deadline=None, max_examples=2_000, print_blob=True, suppress_health_check=_SLOW
)
settings.load_profile(os.environ.get("MIGSCALER_TEST_PROFILE", "quick"))
