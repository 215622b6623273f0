"""An https transport whose certificate authorities are read when they are first needed.

Kept from `prometheus_api` because it loads httpx, for which a start without such a source need not
wait.
"""

import ssl
from pathlib import Path

import httpx


class LateAuthority(httpx.BaseTransport):
    """Reads its file at the first request, and again at each as long as it can't be read.

    A file that is not there, or holds no certificate, then makes a source unknown and no more: read
    at once, it ended the daemon at its start, or passed a reload by.
    """

    def __init__(self, ca_file: Path, limits: httpx.Limits) -> None:
        """Take the file; nothing is read yet."""
        self._ca_file = ca_file
        self._limits = limits
        self._inner: httpx.HTTPTransport | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            httpx.ConnectError: the authorities can't be read; as where nobody answers.
        """
        if self._inner is None:
            try:
                context = ssl.create_default_context(cafile=str(self._ca_file))
            except OSError as error:  # also ssl.SSLError: no certificate in it
                why = error.strerror or str(error)
                raise httpx.ConnectError(
                    f"ca_file can't be read: {why}", request=request
                ) from error
            self._inner = httpx.HTTPTransport(verify=context, limits=self._limits)
        return self._inner.handle_request(request)

    def close(self) -> None:
        """Close the connections."""
        if self._inner is not None:
            self._inner.close()
