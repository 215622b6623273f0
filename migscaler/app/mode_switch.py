"""Puts together what switches MIG modes on a person's word."""

from migscaler.app.clients import client_finder
from migscaler.app.wiring import Assembly
from migscaler.control.loop import Loop
from migscaler.control.mig_mode import ModeSwitch
from migscaler.errors import CommandRefused
from migscaler.model.gpu import GpuState
from migscaler.model.ids import GpuUuid


def mode_switch(assembly: Assembly, loop: Loop) -> ModeSwitch:
    """Return the switch over a node's parts; only where something may be changed."""
    ground, observer = assembly.ground, assembly.observer

    def again(uuid: GpuUuid) -> GpuState:
        snapshot = loop.sample()
        state = None if snapshot is None else snapshot.gpu(uuid)
        if state is None:
            raise CommandRefused(f"{uuid} does not answer any more; see `migscaler doctor`")
        return state

    return ModeSwitch(
        reader=ground.reader,
        writer=ground.writer,
        carry_out=loop.request,
        sample=again,
        record_wish=lambda gpu, on: observer.record_mode(gpu.uuid, wanted=on),
        find_clients=client_finder(ground.roots.proc),
        store=ground.store,
        boot_id=ground.boot_id,
    )
