from migscaler.sim.node import SimNode, build_node
from migscaler.sim.workload import JobKind, Workload

FLAT = (1.0,) * 24


def node_with(*specs: str) -> SimNode:
    node = build_node("A100-SXM4-40GB")
    for spec in specs:
        node.foreign_create(0, spec)
    return node


def test_jobs_arrive_run_and_leave() -> None:
    node = node_with("1g@0", "1g@1", "3g@4")
    load = Workload(node, seed=1, speed=60.0)
    for minute in range(0, 24 * 60, 10):
        load.step(minute)
    tally = load.tally
    assert tally.arrived > 100
    assert tally.started == tally.finished + sum(load.running().values())
    assert tally.arrived == tally.started + sum(load.waiting().values())
    assert load.waiting()["7g"] > 0  # nothing here can take those


def test_job_takes_only_an_instance_of_its_size() -> None:
    node = node_with("1g@0", "3g@4")
    load = Workload(node, 3, (JobKind(size="3g", per_hour=30, mean_minutes=600, curve=FLAT),))
    load.step(0.0)
    load.step(7200.0)
    gpu = node.state.gpus[0]
    assert [gpu.instances[job.gi_id or 0].profile for job in gpu.jobs] == ["3g.20gb"]
    assert load.running() == {"3g": 1}
    assert load.waiting()["3g"] == load.tally.arrived - 1


def test_same_seed_gives_the_same_day_whatever_the_steps() -> None:
    coarse, fine = (Workload(node_with("1g@0", "1g@1", "2g@2"), seed=7) for _ in range(2))
    for second in range(0, 40_000, 40):
        fine.step(second)
    for second in (0, 39_960):
        coarse.step(second)
    assert fine.tally == coarse.tally
    assert fine.waiting() == coarse.waiting()
    other = Workload(node_with("1g@0", "1g@1", "2g@2"), seed=8)
    for second in (0, 39_960):
        other.step(second)
    assert other.tally != coarse.tally


def test_instance_in_use_by_someone_else_is_left_alone() -> None:
    node = node_with("1g@0")
    node.start_job(0, 7, pid=1234)
    load = Workload(node, 1, (JobKind(size="1g", per_hour=60, mean_minutes=5, curve=FLAT),))
    load.step(0.0)
    load.step(3600.0)
    assert load.tally.started == 0
    node.end_job(1234)
    load.step(3601.0)
    assert load.running() == {"1g": 1}


def test_jobs_that_a_reboot_ended_are_counted_as_lost() -> None:
    node = node_with("1g@0")
    load = Workload(node, 1, (JobKind(size="1g", per_hour=60, mean_minutes=5, curve=FLAT),))
    load.step(0.0)
    load.step(600.0)
    assert load.running() == {"1g": 1}
    node.reboot()
    load.step(40_000.0)
    assert load.tally.lost == 1
