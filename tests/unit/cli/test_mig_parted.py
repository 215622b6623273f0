"""mig-parted's two formats: what is written is read back the same, and bad files are refused."""

import json
import re
from dataclasses import replace

import pytest

from migscaler.cli.mig_parted import read_mig_parted
from migscaler.cli.mig_parted_text import checkpoint_text, config_text
from migscaler.cli.mig_targets import Target, targets
from migscaler.errors import ConfigError
from migscaler.model.gpu import GpuOwner, GpuReading, GpuState, PinReason
from migscaler.planner.layouts import all_layouts
from tests.builders import A30, A100, H100, gpu_state, model, snapshot

A100_ID, A30_ID, H100_ID = 0x20B010DE, 0x20B710DE, 0x233010DE


def reading(gpu: GpuState, device_id: int | None = A100_ID) -> GpuReading:
    """Return the GPU as the hardware tells it: with compute profiles and PCI device id."""
    instances = tuple(
        replace(
            one,
            instance=replace(
                one.instance,
                compute_instances=tuple(
                    replace(ci, profile_id=0) for ci in one.instance.compute_instances
                ),
            ),
        )
        for one in gpu.reading.instances or ()
    )
    return replace(gpu.reading, instances=instances, pci_device_id=device_id)


def state(
    name: str, text: str, index: int = 0, device_id: int = A100_ID, **more: object
) -> GpuState:
    made = gpu_state(name, text, index=index, **more)  # type: ignore[arg-type]  # test shorthand
    return replace(made, reading=replace(made.reading, pci_device_id=device_id))


def imported(text: str, *gpus: GpuState, name: str | None = None) -> tuple[Target, ...]:
    found, unused = targets(read_mig_parted("f.yaml", text), name, snapshot(*gpus))
    assert unused == ()
    return found


def layouts(found: tuple[Target, ...]) -> list[str | None]:
    return [None if one.layout is None else str(one.layout) for one in found]


@pytest.mark.parametrize(("name", "figures"), [(A100, 2319), (A30, 76), (H100, 2319)])
def test_every_layout_comes_back_from_a_checkpoint_in_its_place(name: str, figures: int) -> None:
    every = all_layouts(model(name))
    assert len(every) == figures
    empty = gpu_state(name, "-")
    for layout in every[:: max(1, len(every) // 400)]:
        if not len(layout):
            continue
        text = checkpoint_text([reading(gpu_state(name, str(layout)))]).text
        (target,) = imported(text, empty)
        assert (target.layout, target.changes) == (layout, True)


@pytest.mark.parametrize("name", [A100, A30, H100])
def test_every_set_of_sizes_comes_back_from_a_configuration(name: str) -> None:
    every = {tuple(sorted(one.profiles().items())): one for one in all_layouts(model(name))}
    sample = [one for _, one in sorted(every.items()) if len(one)]
    for layout in sample[:: max(1, len(sample) // 40)]:
        there = gpu_state(name, str(layout))
        text = config_text([reading(there)], "current").text

        (elsewhere,) = imported(text, gpu_state(name, "-"))
        assert elsewhere.layout is not None
        assert elsewhere.layout.profiles() == layout.profiles()
        assert model(name).violation(elsewhere.layout) is None
        # Where it is there already, nothing moves.
        (at_home,) = imported(text, there)
        assert (at_home.layout, at_home.changes, at_home.note) == (layout, False, "has it already")


def test_configuration_is_written_as_mig_parted_does() -> None:
    gpus = [
        reading(gpu_state(A100, "3g@0 2g@4 1g@6", index=0)),
        reading(gpu_state(A100, "3g@0 2g@4 1g@6", index=1)),
        reading(gpu_state(A100, "7g@0", index=2)),
        reading(gpu_state(A30, "1g@0 1g@1", index=3), A30_ID),
        reading(gpu_state(A100, "-", index=4, mig=False)),
    ]

    made = config_text(gpus, "current")

    assert made.left_out == ()
    assert made.text == (
        "version: v1\n"
        "mig-configs:\n"
        "  current:\n"
        '    - device-filter: ["0x20B010DE"]\n'
        "      devices: [0, 1]\n"
        "      mig-enabled: true\n"
        "      mig-devices:\n"
        '        "1g.5gb": 1\n'
        '        "2g.10gb": 1\n'
        '        "3g.20gb": 1\n'
        '    - device-filter: ["0x20B010DE"]\n'
        "      devices: [2]\n"
        "      mig-enabled: true\n"
        "      mig-devices:\n"
        '        "7g.40gb": 1\n'
        '    - device-filter: ["0x20B710DE"]\n'
        "      devices: all\n"
        "      mig-enabled: true\n"
        "      mig-devices:\n"
        '        "1g.6gb": 2\n'
        '    - device-filter: ["0x20B010DE"]\n'
        "      devices: [4]\n"
        "      mig-enabled: false\n"
        "      mig-devices: {}\n"
    )


def test_node_of_equal_gpus_is_one_entry_for_all() -> None:
    gpus = [reading(gpu_state(A100, "3g@0 3g@4", index=index)) for index in (0, 1)]

    assert config_text(gpus, "mine: all").text == (
        "version: v1\n"
        "mig-configs:\n"
        '  "mine: all":\n'
        "    - devices: all\n"
        "      mig-enabled: true\n"
        "      mig-devices:\n"
        '        "3g.20gb": 2\n'
    )


@pytest.mark.parametrize("ids", [(A100_ID, A100_ID), (A100_ID, None), (None, None)])
def test_gpu_that_can_not_be_read_is_left_out_and_not_meant_by_all(
    ids: tuple[int | None, int | None],
) -> None:
    blind = replace(reading(gpu_state(A100, "-", index=1), ids[1]), instances=None)
    gpus = [reading(gpu_state(A100, "7g@0"), ids[0]), blind]

    made = config_text(gpus, "current")

    assert made.left_out == ("GPU 1: its instances can't be read",)
    assert "devices: [0]" in made.text
    assert json.loads(checkpoint_text(gpus).text)["MigState"]["Devices"][0]["UUID"] == gpus[0].uuid
    assert len(json.loads(checkpoint_text(gpus).text)["MigState"]["Devices"]) == 1


def test_checkpoint_is_written_as_mig_parted_does() -> None:
    gpus = [
        reading(gpu_state(A100, "3g@4 1g@0")),
        reading(gpu_state(A100, "-", index=1, mig=False)),
        reading(gpu_state(A100, "-", index=2, mig=None)),
    ]

    assert json.loads(checkpoint_text(gpus).text) == {
        "Version": "v1",
        "MigState": {
            "Devices": [
                {
                    "UUID": gpus[0].uuid,
                    "MigMode": 1,
                    "GpuInstances": [
                        {
                            "ProfileID": 0,
                            "Placement": {"Start": 0, "Size": 1},
                            "ComputeInstances": [{"ProfileID": 0, "EngProfileID": 0}],
                        },
                        {
                            "ProfileID": 2,
                            "Placement": {"Start": 4, "Size": 4},
                            "ComputeInstances": [{"ProfileID": 0, "EngProfileID": 0}],
                        },
                    ],
                },
                {"UUID": gpus[1].uuid, "MigMode": 0, "GpuInstances": None},
            ]
        },
    }


def test_orphan_is_told_as_left_out() -> None:
    gpu = reading(gpu_state(A100, "3g@0 3g@4"))
    whole, other = gpu.instances or ()
    bare = replace(other, instance=replace(other.instance, compute_instances=()))

    made = config_text([replace(gpu, instances=(whole, bare))], "current")

    assert made.left_out == ("GPU 0 3g.20gb@4: it has no compute instance",)
    assert '"3g.20gb": 1' in made.text


def test_narrower_compute_instances_have_mig_parteds_names() -> None:
    gpu = reading(gpu_state(A100, "3g@0"))
    (one,) = gpu.instances or ()
    (ci,) = one.instance.compute_instances
    narrow = replace(ci, full_width=False, compute_slices=1)
    split = replace(one.instance, compute_instances=(narrow, replace(narrow, compute_slices=2)))

    made = config_text([replace(gpu, instances=(replace(one, instance=split),))], "current")

    assert '"1c.3g.20gb": 1' in made.text
    assert '"2c.3g.20gb": 1' in made.text


def config(*entries: str) -> str:
    return "version: v1\nmig-configs:\n  all:\n" + "".join(f"    - {entry}\n" for entry in entries)


HALVES = '{devices: all, mig-enabled: true, mig-devices: {"3g.20gb": 2}}'


def test_fewest_instances_change_and_those_in_use_stay() -> None:
    busy = state(A100, "1g@0 1g@1 1g@2 1g@3 3g@4", pins={"1g@3": PinReason.PROCESS})

    (target,) = imported(
        config('{devices: all, mig-enabled: true, mig-devices: {"1g.5gb": 2, "3g.20gb": 1}}'), busy
    )

    assert str(target.layout) == "1g.5gb@0 1g.5gb@3 3g.20gb@4"
    assert (target.changes, target.note) == (True, "")


def test_instance_in_use_that_is_in_the_way_is_named() -> None:
    busy = state(A100, "1g@3", pins={"1g@3": PinReason.PROCESS})

    (target,) = imported(config(HALVES), busy)

    assert (str(target.layout), target.changes) == ("3g.20gb@0 3g.20gb@4", True)
    assert target.note.startswith("1g.5gb@3 is in the way")


def test_filter_and_devices_choose_the_gpus() -> None:
    gpus = (
        state(A100, "-", 0),
        state(A30, "-", 1, A30_ID),
        state(A100, "-", 2),
    )
    text = config(
        '{device-filter: "0x20B710DE", devices: all, mig-enabled: true,'
        ' mig-devices: {"1g.6gb": 4}}',
        '{device-filter: ["0x20B010DE", "0x233010DE"], devices: [0, 1], mig-enabled: true,'
        ' mig-devices: {"7g.40gb": 1}}',
    )

    found = imported(text, *gpus)

    assert layouts(found) == [
        "7g.40gb@0",
        "1g.6gb@0 1g.6gb@1 1g.6gb@2 1g.6gb@3",
        None,
    ]
    assert found[2].note == "not named in the file; stays"


def test_last_of_several_entries_for_a_gpu_stays_as_mig_parted_applies_them() -> None:
    text = config(HALVES, '{devices: [0], mig-enabled: true, mig-devices: {"7g.40gb": 1}}')

    assert layouts(imported(text, state(A100, "-"), state(A100, "-", 1))) == [
        "7g.40gb@0",
        "3g.20gb@0 3g.20gb@4",
    ]


def test_name_that_is_taken_for_another_is_told() -> None:
    """A file for other cards must not be read silently: 1g.18gb is one slice of an H200."""
    entry = "{devices: all, mig-enabled: true, mig-devices: {3g.21gb: 1, 1g: 1}}"

    (target,) = imported(config(entry), state(A100, "-"))

    assert str(target.layout) == "1g.5gb@0 3g.20gb@4"
    assert target.note == "3g.21gb is taken as 3g.20gb; 1g is taken as 1g.5gb"


def test_modes_and_empty_wishes_are_told_not_made() -> None:
    off = "{devices: [0, 1], mig-enabled: false}"
    empty = "{devices: [2], mig-enabled: true, mig-devices: {}}"
    on = '{devices: [3], mig-enabled: true, mig-devices: {"7g.40gb": 1}}'
    gpus = (
        state(A100, "7g@0", 0),
        state(A100, "-", 1, mig=False),
        state(A100, "7g@0", 2),
        state(A100, "-", 3, mig=False),
    )

    found = imported(config(off, empty, on), *gpus)

    assert [one.note for one in found] == [
        "the file wants MIG mode off: migscaler mig-mode off --gpu 0",
        "MIG mode is off, as in the file",
        "the file wants no instances; no GPU is left empty, it stays",
        "MIG mode is off; first: migscaler mig-mode on --gpu 3 --layout '7g.40gb@0'",
    ]
    assert not any(one.changes for one in found)


def test_gpu_of_somebody_else_stays() -> None:
    gpu = state(A100, "-")
    owned = replace(gpu, reading=replace(gpu.reading, foreign_owner=GpuOwner.HYPERVISOR))

    (target,) = imported(config(HALVES), owned)

    assert (target.layout, target.changes) == (None, False)
    assert "the hypervisor owns its layout" in target.note


def test_older_spelling_and_other_case_are_read() -> None:
    """Go reads JSON keys in any case, and older checkpoints say ProfileId."""
    gpu = gpu_state(A100, "3g@0 3g@4")
    text = checkpoint_text([reading(gpu)]).text.replace("ProfileID", "ProfileId")

    (target,) = imported(text.replace('"MigState"', '"migState"'), gpu_state(A100, "-"))

    assert str(target.layout) == "3g.20gb@0 3g.20gb@4"


def test_gpus_of_the_file_that_are_not_here_are_told() -> None:
    text = checkpoint_text([reading(gpu_state(A100, "7g@0", index=5))]).text
    found, unused = targets(read_mig_parted("f", text), None, snapshot(state(A100, "7g@0")))
    assert found[0].note == "not named in the file; stays"
    assert unused == (f"{gpu_state(A100, '-', index=5).uuid} is not on this node",)

    named = config("{devices: [0, 9], mig-enabled: false}")
    _, unused = targets(read_mig_parted("f", named), None, snapshot(state(A100, "7g@0")))
    assert unused == ("there is no GPU 9 on this node",)


GPU0 = gpu_state(A100, "-").uuid


def checkpoint(instance: str) -> str:
    return (
        f'{{"Version":"v1","MigState":{{"Devices":[{{"UUID":"{GPU0}","MigMode":1,'
        f'\n"GpuInstances":[{instance}]}}]}}}}'
    )


ONE_CI = '"ComputeInstances":[{"ProfileID":2,"EngProfileID":0}]'
BAD: list[tuple[str, int | None, str, str]] = [
    ("", None, "neither a configuration", "nvidia-mig-parted export"),
    ("- a\n- b\n", 1, "not a mapping", "examples"),
    ("mig-configs: {a: [}\n", 1, "not readable as YAML", "brackets|quotes|colons"),
    ("mig-configs: {}\nversion: v1\n", 1, "no configuration in it", "at least one"),
    ("version: v2\nmig-configs: {a: []}\n", 1, "version 'v2' is not known", "only v1"),
    ("mig-configs: {a: []}\n", 1, "version None is not known", "only v1"),
    ("version: v1\nmig-configs: {a: []}\n", 2, "it has no entry", "at least one"),
    ("version: v1\nmig-configs: {a: 3}\n", 2, "not a list", "examples"),
    ("version: v1\nmig-config: {a: []}\n", 1, "neither a configuration", "export"),
    ("version: v1\nextra: 1\nmig-configs: {a: []}\n", 2, "no such key", "take it out"),
    (config("{devices: all}"), 4, "mig-enabled is missing", "true or false"),
    (config("{mig-enabled: true}"), 4, "devices is missing", "a list like"),
    (config("{devices: all, mig-enabled: yes}"), 4, "'yes'", "true or false"),
    (config("{devices: all, mig-enabled: true}"), 4, "mig-devices is missing", "add it"),
    (config("{devices: some, mig-enabled: false}"), 4, "'some'", "all, or a list"),
    (config("{devices: [0, -1], mig-enabled: false}"), 4, "-1 is not a whole number", "0, 1"),
    (
        config('{devices: all, mig-enabled: false, mig-devices: {"7g.40gb": 1}}'),
        4,
        "mig-enabled: false",
        "choose one",
    ),
    (
        config('{devices: all, mig-enabled: true, mig-devices: {"7g.40gb": one}}'),
        4,
        "'one' is not a whole number",
        "0, 1",
    ),
    (
        config('{devices: all, mig-enabled: true, mig-devices: {"5g.40gb": 1}}'),
        4,
        "has no 5g.40gb",
        r"it has 1g\.5gb",
    ),
    (
        config('{devices: all, mig-enabled: true, mig-devices: {"1c.3g.20gb": 1}}'),
        4,
        r"has no 1c\.3g\.20gb",
        "whole instances",
    ),
    (
        config('{devices: all, mig-enabled: true, mig-devices: {"3g.20gb": 3}}'),
        4,
        "does not fit",
        "fewer or smaller",
    ),
    (
        config('{devices: all, mig-enabled: true, mig-devices: {"3g.20gb": 5000000}}'),
        4,
        "5000000 are more than fit",
        "how many one GPU",
    ),
    (
        checkpoint(
            f'{{"ProfileID":0,"Placement":{{"Start":100000000000000000,"Size":1}},{ONE_CI}}}'
        ),
        2,
        "past the memory slices",
        "new checkpoint",
    ),
    (config('{device-filter: "x", devices: all, mig-enabled: false}'), 4, "no PCI", "0x20B010DE"),
    (config("{device-filter: 0x20B010DE, devices: all, mig-enabled: false}"), 4, "two", "quotes"),
    (
        config('{device-filter: "0x20B010DE:0x134F10DE", devices: all, mig-enabled: false}'),
        4,
        "boards",
        '"0x20B010DE"',
    ),
    ('{"Version":"v1","MigState":{"Devices":3}}', 1, "not a list", "examples"),
    ('{"Version":"v3","MigState":{"Devices":[]}}', 1, "version 'v3'", "only v1"),
    (checkpoint("{}"), 2, "profileid is missing|not a mapping", "examples"),
    (
        checkpoint('{"ProfileID":2,"Placement":{"Start":1,"Size":4},' + ONE_CI + "}"),
        1,
        "may not lie at",
        "new checkpoint",
    ),
    (
        checkpoint('{"ProfileID":77,"Placement":{"Start":0,"Size":4},' + ONE_CI + "}"),
        2,
        "has no profile 77",
        "new checkpoint",
    ),
    (
        checkpoint('{"ProfileID":2,"Placement":{"Start":0,"Size":4},"ComputeInstances":null}'),
        2,
        "3g.20gb with 0 compute instances",
        "one compute instance",
    ),
]


@pytest.mark.parametrize(("text", "line", "problem", "remedy"), BAD)
def test_bad_file_is_one_error_with_line_and_remedy(
    text: str, line: int | None, problem: str, remedy: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        targets(read_mig_parted("bad.yaml", text), None, snapshot(state(A100, "-")))

    (finding,) = caught.value.findings
    assert finding.line == line
    assert re.search(problem, finding.problem), finding
    assert re.search(remedy, finding.remedy), finding


def test_several_configurations_need_a_name() -> None:
    text = f"version: v1\nmig-configs:\n  a: [{HALVES}]\n  b: [{HALVES}]\n"

    with pytest.raises(ConfigError) as caught:
        imported(text, state(A100, "-"))
    assert caught.value.findings[0].remedy == "choose by --name: a, b"
    with pytest.raises(ConfigError) as caught:
        imported(text, state(A100, "-"), name="c")
    assert caught.value.findings[0].problem == "no configuration 'c'"
    assert layouts(imported(text, state(A100, "-"), name="b")) == ["3g.20gb@0 3g.20gb@4"]


def test_checkpoint_of_a_node_without_mig_is_read_again() -> None:
    """Go writes an empty list as null, and so does our own export."""
    read = read_mig_parted("saved.json", checkpoint_text(()).text)

    assert read.saved == ()


def test_filter_of_a_board_matters_only_where_it_is_chosen() -> None:
    """One that another configuration named refused the whole file."""
    text = (
        "version: v1\nmig-configs:\n"
        '  a: [{device-filter: "0x20B010DE:0x1", devices: all, mig-enabled: false}]\n'
        "  b: [{devices: all, mig-enabled: false}]\n"
    )

    assert targets(read_mig_parted("x", text), "b", snapshot())[0] == ()
    with pytest.raises(ConfigError):
        targets(read_mig_parted("x", text), "a", snapshot())
