"""Control groups as hosts wrote them; each text is cut to its first lines, which repeat.

From neuvector/neuvector `share/system/cgroup_test.go` unless another source is named.
"""

import pytest

from migscaler.hardware.cgroups import container_of
from migscaler.model.process import Container

DEBIAN = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"
CENTOS = "9ec39b91f3d70e1beff50a308f77067065ea6be0d91a3378375056cd4422cf3d"
UBUNTU = "31cb02944da7a12196a193cf0e0f6c226d7c453a1db62e65ba98287593a2ee30"
RANCHER = "a9a5ad238e59234193ee7ec3fcff5e735b3708ea1068826952255b69e3cfa413"
NESTED = "ec08435e04266c5ba381fccbb829f626d11d8ddf5f8f547263c7a2d79ab4787a"
KUBELET = "cb1eadb7abe3a6545e9856411207073277838e1bdc003337c2f8685faeedc32c"
SYSTEMD = "b5b6f2da8008be266864f896f93789762b2ce50792114a5c5f2cc3315af0bc70"
PROXY = "c04e0a88a1de067f25bece337d4dbb897396e0b623c2a65330850fc9823f1903"
BOTTLEROCKET = "f45298cd514d1930c4fe3afc4412e59547f7e3148fddd22ca33cefce046eb830"
CRIO = "7a1fd6fe8cdfbd44dc78c4cc85dad7031eaab4365801684cad0aabdeaf863f9e"
COLON = "d3d8ccf5cca91931c6285c1d7472c413dd5a7700fddc0aa9f89a9ac7008b003e"
PODMAN = "b6e375cfe46efa5cd90d095603dec2de888c28b203285819233040b5cf1212ac"
OUTSIDE = "45490e76e0878aaa4d9808f7d2eefba37f093c3efbba9838b6d8ab804d9bd814"
CONMON = "eb5a56051cf7c5e9e588d0dca94d6673d67d43604686e1485984732b18701057"

FOUND = {
    "Docker on Debian 8, version 1": (
        f"10:net_prio:/{DEBIAN}\n9:perf_event:/{DEBIAN}\n8:blkio:/{DEBIAN}",
        (DEBIAN, None, None),
    ),
    "Docker on CentOS, systemd": (
        f"10:devices:/system.slice/docker-{CENTOS}.scope\n"
        f"2:cpuacct,cpu:/system.slice/docker-{CENTOS}.scope",
        (CENTOS, "docker", None),
    ),
    "Docker on Ubuntu, cgroupfs": (
        f"12:name=systemd:/docker/{UBUNTU}\n11:hugetlb:/docker/{UBUNTU}",
        (UBUNTU, "docker", None),
    ),
    "Docker in Docker on RancherOS": (
        f"9:name=systemd:/docker/{RANCHER}/docker/{NESTED}",
        (NESTED, "docker", None),
    ),
    "kubelet with cgroupfs": (
        f"11:devices:/kubepods/besteffort/pod74ba62da-1a3d-11e7-bb11-080027cb0e22/{KUBELET}",
        (KUBELET, None, "74ba62da-1a3d-11e7-bb11-080027cb0e22"),
    ),
    "kubelet with systemd and Docker": (
        "11:cpuset:/kubepods.slice/kubepods-besteffort.slice/"
        "kubepods-besteffort-pod045b1e35_7f13_11e7_ac42_0050568ffca0.slice/"
        f"docker-{SYSTEMD}.scope",
        (SYSTEMD, "docker", "045b1e35-7f13-11e7-ac42-0050568ffca0"),
    ),
    "a group of its own within the container (kube-proxy)": (
        f"11:freezer:/kubepods/besteffort/podf8a694f2-7c08-11e9-98da-000c29077430/{PROXY}/"
        "kube-proxy",
        (PROXY, None, "f8a694f2-7c08-11e9-98da-000c29077430"),
    ),
    "containerd on Bottlerocket, version 2 line last": (
        "6:rdma:/\n"
        "0::/kubepods.slice/kubepods-besteffort.slice/"
        "kubepods-besteffort-poddd1bf9d1_241d_47f5_8e25_12de83135812.slice/"
        f"cri-containerd-{BOTTLEROCKET}.scope",
        (BOTTLEROCKET, "containerd", "dd1bf9d1-241d-47f5-8e25-12de83135812"),
    ),
    "cri-o 1.17, static pod": (
        "12:hugetlb:/kubepods.slice/kubepods-burstable.slice/"
        f"kubepods-burstable-pod487a0dc6dccaeefbcfedba7a7ce1ca18.slice/crio-{CRIO}.scope",
        (CRIO, "cri-o", "487a0dc6dccaeefbcfedba7a7ce1ca18"),
    ),
    "containerd 1.4.4 without SystemdCgroup": (
        "11:pids:/system.slice/containerd.service/"
        "kubepods-besteffort-pod2105e389_7471_476e_a50f_6074cef29bbd.slice"
        f":cri-containerd:{COLON}",
        (COLON, "containerd", "2105e389-7471-476e-a50f-6074cef29bbd"),
    ),
    "podman, process in a group below": (
        f"0::/machine.slice/libpod-{PODMAN}.scope/container",
        (PODMAN, "podman", None),
    ),
    "read from within another container's group namespace": (
        f"0::/../crio-{OUTSIDE}.scope",
        (OUTSIDE, "cri-o", None),
    ),
}

NOT_FOUND = {
    "host": "13:name=systemd:/\n12:pids:/\n0::/",
    "login session": "13:name=systemd:/user/1000.user/c2.session\n0::/user.slice/user-1000.slice",
    "system service": "0::/system.slice/ssh.service",
    # A runtime's helper beside the container: it belongs to the host (tracee `containers_test.go`).
    "monitor of cri-o": f"0::/kubepods.slice/crio-conmon-{CONMON}.scope",
    "monitor of podman": f"0::/machine.slice/libpod-conmon-{CONMON}.scope",
    "an id too short": f"0::/system.slice/docker-{UBUNTU[:-1]}.scope",
    "no id at all": "0::/system.slice/docker.service",
    "empty": "",
    "nonsense": "\0\n::::\n:\n",
}


@pytest.mark.parametrize("host", FOUND)
def test_container_is_read_from_what_hosts_write(host: str) -> None:
    text, (container_id, runtime, pod_uid) = FOUND[host]

    assert container_of(text) == Container(
        container_id=container_id, runtime=runtime, pod_uid=pod_uid
    )


@pytest.mark.parametrize("host", NOT_FOUND)
def test_process_outside_a_container_has_none(host: str) -> None:
    assert container_of(NOT_FOUND[host]) is None


def test_container_is_shown_with_twelve_digits() -> None:
    inside = Container(container_id=UBUNTU)

    assert str(inside) == "container 31cb02944da7"
    assert str(Container(container_id=KUBELET, runtime="containerd", pod_uid="74ba62da")) == (
        "containerd cb1eadb7abe3 of pod 74ba62da"
    )
