"""`migscaler lease`: run a command on an instance of a size, and give the instance back after."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

import click

from migscaler.app.accounts import account_name
from migscaler.app.clock import RealClock
from migscaler.cli.answers import Answer, text
from migscaler.cli.output import Failed, leave, note, output_option
from migscaler.cli.params import DURATION
from migscaler.cli.session import Node, Session, pass_session
from migscaler.errors import DaemonSilent, MigscalerError

_FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
# siginfo.si_code of a signal that the kernel sent, e.g. the terminal's Ctrl-C (sigaction(2)); the
# whole foreground group got it, so the command must not get it twice.
_FROM_KERNEL = 0x80
_POLL_SECONDS = 1.0
# So long a daemon keeps a place in the queue that nobody asks for.
_PLACE_SECONDS = 30.0
# How long the end of the command may go unnoticed: SIGCHLD goes to any thread that does not hold it
# back (a library's), and is lost there.
_LOOK_SECONDS = 1.0
# A lease is renewed often enough that two failures in a row do not lose it.
_RENEWALS_PER_TTL = 4
_RENEW_AT_MOST_SECONDS = 60.0
# What shells answer for a command that can't be started.
_NOT_STARTED = 127

Child = subprocess.Popen[bytes]
Signal = signal.struct_siginfo


@click.command(epilog="Example: migscaler lease --wait 2g -- python train.py")
@click.argument("size")
@click.option(
    "--ttl",
    type=DURATION,
    default="8h",
    show_default=True,
    help="Lapses this long after the last sign of life.",
)
@click.option("--wait", is_flag=True, help="Wait for one; waiting is demand, so one may be made.")
@click.option("--wait-for", "patience", type=DURATION, help="Wait for one, no longer than this.")
@click.option("--owner", help="Name to show as the holder. [default: the user's]")
@output_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_session
def lease(
    session: Session,
    size: str,
    ttl: timedelta,
    wait: bool,  # click passes it by name
    patience: timedelta | None,
    owner: str | None,
    output: str,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND with CUDA_VISIBLE_DEVICES set to a free instance of SIZE (2g, 3g.20gb).

    The exit code is the command's. The instance is given back however the command ends.
    """
    if not command:
        # Options of ours may stand after SIZE, so the command's own need the dashes before them.
        raise click.UsageError("name the command to run, after --")
    asked: Answer = {
        "size": size,
        "owner": owner or account_name(os.getuid()),
        "ttl_seconds": ttl.total_seconds(),
        "pid": os.getpid(),
        "wait": wait or patience is not None,
    }
    with session.node(daemon_only=True) as node, _signals_blocked() as mask_before:
        granted = _take(node, asked, patience)
        _announce(granted, output)
        try:
            child = _start(granted, command, mask_before)
            code = _attend(node, granted, child, ttl.total_seconds())
        finally:
            _give_back(node, granted)
    leave(code)


def _take(node: Node, asked: Answer, patience: timedelta | None) -> Answer:
    """Return a granted lease; waits for it if that was asked, as long as `patience` lasts.

    A signal ends the wait; a daemon that is started anew, with the queue of the one before, does
    not.
    """
    clock = RealClock()
    end = None if patience is None else clock.monotonic() + patience.total_seconds()
    answer = node.execute("lease_take", asked)
    if answer.get("granted"):
        return answer
    wait_id = answer.get("wait_id")
    if wait_id is None:
        raise Failed(
            f"{text(answer, 'message', 'nothing is free')}; with --wait you queue for one, and the "
            "daemon may make it"
        )
    told, heard = "", clock.monotonic()
    try:
        while not answer.get("granted"):
            message = text(answer, "message", "waiting for an instance")
            if message != told:
                note(f"migscaler: {message}")
                told = message
            left = _POLL_SECONDS if end is None else min(_POLL_SECONDS, end - clock.monotonic())
            if left <= 0:
                raise Failed(f"no {asked['size']} came free in time (--wait-for)")
            got = _next_signal(_FORWARDED, left)
            if got is not None:
                raise Failed("stopped waiting", 128 + got.si_signo)
            try:
                answer = node.execute(
                    "lease_poll", {"wait_id": wait_id, "ttl_seconds": asked["ttl_seconds"]}
                )
                heard = clock.monotonic()
            except DaemonSilent as error:
                if clock.monotonic() - heard > _PLACE_SECONDS:
                    raise
                answer = {"message": f"{error}; asking again"}
    except BaseException:
        with suppress(MigscalerError):  # a place that nobody asks for lapses
            node.execute("lease_cancel", {"wait_id": wait_id})
        raise
    return answer


def _announce(granted: Answer, output: str) -> None:
    """Say on standard error what was got; standard output belongs to the command."""
    if output == "json":
        note(json.dumps(granted))
    else:
        spec, uuid = text(granted, "spec"), text(granted, "mig_uuid")
        note(f"migscaler: lease {text(granted, 'lease_id')}: {spec} on {uuid}")


def _start(granted: Answer, command: Sequence[str], mask: set[signal.Signals]) -> Child:
    """Start the command on the instance, with the signal mask that this process had before."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": text(granted, "mig_uuid", "")}

    def restore() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        # One thread runs here, so code between fork and exec is safe.
        return subprocess.Popen(command, env=environment, preexec_fn=restore)
    except OSError as error:
        raise Failed(f"{command[0]}: {error.strerror}", _NOT_STARTED) from error


def _attend(node: Node, granted: Answer, child: Child, ttl_seconds: float) -> int:
    """Forward signals and renew the lease until the command ends; return its exit code."""
    clock = RealClock()
    period = min(ttl_seconds / _RENEWALS_PER_TTL, _RENEW_AT_MOST_SECONDS)
    due, is_renewed = clock.monotonic() + period, True
    while child.poll() is None:
        left = min(max(0.0, due - clock.monotonic()), _LOOK_SECONDS)
        got = _next_signal((*_FORWARDED, signal.SIGCHLD), left)
        if got is not None and got.si_signo != signal.SIGCHLD and got.si_code != _FROM_KERNEL:
            child.send_signal(got.si_signo)
        if clock.monotonic() >= due:  # also where one signal follows another
            is_renewed = _renew(node, granted, ttl_seconds, warn=is_renewed)
            due = clock.monotonic() + period
    # A shell's way to say that a signal ended it.
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _next_signal(wanted: tuple[signal.Signals, ...], seconds: float) -> Signal | None:
    """Wait for a signal; None if none of these came within so many seconds.

    Not sigtimedwait: stopped (Ctrl-Z) beyond the time-out and continued, CPython's returns a signal
    that nobody sent (3.11.7: it fills its answer from memory that the kernel did not write).
    """
    bell = threading.Timer(seconds, signal.pthread_kill, (threading.get_ident(), signal.SIGALRM))
    try:
        bell.start()
    except RuntimeError:  # the command may have used up what this account may start
        RealClock().sleep(seconds)
        return signal.sigtimedwait(wanted, 0)
    try:
        got = signal.sigwaitinfo((*wanted, signal.SIGALRM))
    finally:
        bell.cancel()
        bell.join()
        signal.sigtimedwait((signal.SIGALRM,), 0)  # one that rang too late would end us
    return None if got.si_signo == signal.SIGALRM else got


def _renew(node: Node, granted: Answer, ttl_seconds: float, *, warn: bool) -> bool:
    """Renew the lease and say whether that worked; the command runs on in any case."""
    try:
        node.execute("lease_renew", {"lease_id": granted["lease_id"], "ttl_seconds": ttl_seconds})
    except MigscalerError as error:
        if warn:
            note(f"migscaler: the lease could not be renewed: {error}")
        return False
    return True


def _give_back(node: Node, granted: Answer) -> None:
    """Give the instance back; where nobody answers, the daemon notices that its holder is gone."""
    try:
        node.execute("lease_release", {"lease_id": granted["lease_id"]})
    except MigscalerError as error:
        note(f"migscaler: the lease could not be given back, it will lapse: {error}")


@contextmanager
def _signals_blocked() -> Iterator[set[signal.Signals]]:
    """Hold signals back, so that each is waited for in one place; gives the mask before."""
    held = (*_FORWARDED, signal.SIGCHLD, signal.SIGALRM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    mask = {signal.Signals(number) for number in before}
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
