"""The daemon's HTTP side: its server and its web configuration file, looked after."""

import logging
import threading
from collections.abc import Callable

from migscaler.app.systemd import notify
from migscaler.app.web_watch import WebWatch
from migscaler.web.server import WebServer

_log = logging.getLogger("migscaler.web")

_AGAIN_SECONDS = 5.0


class WebSide:
    """Serves from `start` to `stop`, and says what it can't serve and why.

    An address that is not there yet (a network that comes up later), or that somebody else took,
    keeps nobody from the rest: the node is settled, the other address answers, and the missing one
    is tried again until it can be had. All but `read_again` and `tell` is called by one thread.
    """

    def __init__(
        self, watch: WebWatch, server: WebServer, note: Callable[[tuple[str, ...]], None]
    ) -> None:
        """Take the parts; `note` is told all that is wrong, whenever that changes."""
        self._watch = watch
        self._server = server
        self._note = note
        self._lacking: tuple[str, ...] = ()
        self._stop = threading.Event()
        self._trying: threading.Thread | None = None

    def start(self, *, attended: bool) -> str | None:
        """Serve; return the page's address, None where nobody is served over TCP.

        Raises:
            AddressTaken: an address can't be listened on, and somebody is there to mend it.
        """
        self.tell()
        self._server.start(whole=attended)
        if self._look_at_addresses():
            self.tell()
        self._try_what_lacks()
        return self.page

    @property
    def page(self) -> str | None:
        """Return the page's address, None where nobody is served over TCP."""
        return self._watch.page(self._server.address)

    def read_again(self) -> None:
        """Have the web configuration file read at the next look; may be called by a signal."""
        self._watch.read_again()

    def look(self) -> bool:
        """Take up what has changed of file and addresses; say whether that is to be told."""
        is_changed = self._watch.look()
        if is_changed and self._watch.protection is not None:
            self._server.protect(self._watch.protection)
            self._try_what_lacks()
        return self._look_at_addresses() or is_changed

    def tell(self) -> None:
        """Tell status and log what can't be served, and why; waits for a tick under way."""
        self._note((*self._watch.problems, *self._lacking))
        if self._watch.protection is None:
            _log.error("tcp_closed why=%s", "the web configuration file can't be used")

    def stop(self) -> None:
        """Stop serving, after the answers under way."""
        self._stop.set()
        self._server.stop()

    def _try_what_lacks(self) -> None:
        """Have a thread try what is not listened on, if none does."""
        if self._server.lacking and not (self._trying and self._trying.is_alive()):
            self._trying = threading.Thread(target=self._keep_trying, name="listen", daemon=True)
            self._trying.start()

    def _keep_trying(self) -> None:
        """Try until nothing is lacking; a thread of its own, as name servers may be slow."""
        while self._server.lacking and not self._stop.wait(_AGAIN_SECONDS):
            self._server.try_again()

    def _look_at_addresses(self) -> bool:
        """Log what is not listened on, and what is now; say whether that has changed."""
        lacking, before = self._server.lacking, self._lacking
        if lacking == before:
            return False
        self._lacking = lacking
        for why in lacking:
            _log.error("not_listening why=%s next=%s", why, "tried again every 5 s")
        if len(lacking) < len(before):
            page = self.page or "the Unix socket"
            _log.info("listening page=%s", page)
            notify(f"STATUS=serving {page}")
        return True
