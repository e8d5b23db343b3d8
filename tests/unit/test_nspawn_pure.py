"""The pure parts of nspawn machines: names, addresses, rules, sources, what is taken over."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from clusterkit.cluster.nspawn import base, host, needs, network, sources, surroundings
from clusterkit.cluster.nspawn.host import Bind, Host
from clusterkit.cluster.nspawn.network import Network
from clusterkit.errors import ClusterError

ID = "0123456789abcdef"
NET = Network(ID, IPv4Network("10.80.3.0/24"))


def a_host(folder: Path, name: str = "lab-gpu-1") -> Host:
    return Host(
        name, IPv4Address("10.80.3.4"), folder, NET, (Path("/i/slurm"), Path("/i/base")),
        (Bind("/srv/home", "/home", read_only=False), Bind("/opt/a:b", "/opt/a:b")),
    )  # fmt: skip


def test_interface_names_fit_the_kernel() -> None:
    assert len(NET.bridge) <= 15


def test_routes_and_free_networks() -> None:
    listed = b"""[{"dst":"default"},{"dst":"10.64.0.0/16"},{"dst":"192.0.2.7"},{"dst":"x"},{}]"""
    used = network.routes(listed)
    assert used == [IPv4Network("10.64.0.0/16"), IPv4Network("192.0.2.7/32")]
    assert network.free("0" * 16, used) == IPv4Network("10.65.0.0/24")
    assert network.free("00003fff" + "0" * 8, used) == IPv4Network("10.127.255.0/24")
    assert network.free("00003fff" + "0" * 8, [IPv4Network("10.127.0.0/16"), *used]) == IPv4Network(
        "10.65.0.0/24"
    )
    assert network.free(ID, [IPv4Network("10.0.0.0/8")]) is None


def test_addresses_run_from_two_and_out() -> None:
    small = IPv4Network("10.0.0.0/30")
    assert host.free_address(small, []) == IPv4Address("10.0.0.2")
    with pytest.raises(ClusterError, match="no free address"):
        host.free_address(small, [IPv4Address("10.0.0.2")])


def test_the_rules_name_the_cluster_and_nothing_else() -> None:
    rules = NET.rules()
    assert rules.count(f"clusterkit_{ID}") == 3
    assert 'ip saddr 10.80.3.0/24 oifname != "ck0123456789" masquerade' in rules


def test_tables_of_nft() -> None:
    listed = {"nftables": [{"metainfo": {}}, {"table": {"family": "ip", "name": "t"}}]}
    assert network.tables(json.dumps(listed).encode()) == ("t",)


def test_a_firewall_that_forwards_nothing_is_seen() -> None:
    def chains(policy: str) -> bytes:
        chain = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward"}
        return json.dumps({"nftables": [{"chain": {**chain, "policy": policy}}]}).encode()

    assert network.blocked(chains("drop"))
    assert not network.blocked(chains("accept"))
    assert not network.blocked(b'{"nftables": [{"metainfo": {}}]}')


def test_an_image_that_cannot_be_made_is_refused_before(tmp_path: Path) -> None:
    recipe = base.Recipe("ubuntu-24.04")
    keyring = sources.sources(recipe.image, None).keyring_file
    if keyring.exists():
        base.check(recipe, tmp_path)
    else:
        with pytest.raises(ClusterError, match="ubuntu-archive-keyring"):
            base.check(recipe, tmp_path)
    for name in recipe.names():
        (tmp_path / name).mkdir()
    base.check(recipe, tmp_path)  # it is there: nothing has to be made


def test_the_command_without_systemd(tmp_path: Path) -> None:
    argv = a_host(tmp_path).argv(unit=False)
    assert argv[:2] == ["env", f"CLUSTERKIT_NSPAWN={ID}:lab-gpu-1"]
    assert "unshare" in argv
    assert f"lowerdir=/i/slurm:/i/base,upperdir={tmp_path}/upper,workdir={tmp_path}/work" in argv
    assert f"clusterkit-{ID}/lab-gpu-1" in argv
    assert "--hostname=lab-gpu-1" in argv
    assert "--bind=/srv/home:/home" in argv
    assert r"--bind-ro=/opt/a\:b:/opt/a\:b" in argv


def test_the_command_as_a_unit_of_systemd(tmp_path: Path) -> None:
    argv = a_host(tmp_path).argv(unit=True)
    assert argv[0] == "systemd-run"
    assert "--property=Delegate=yes" in argv
    assert "--property=RestartForceExitStatus=133" in argv  # a reboot inside
    assert f"--property=StandardOutput=append:{tmp_path}/console.log" in argv
    assert argv[argv.index("--") + 1] == "env"
    assert "cgroup.procs" not in " ".join(argv)


def test_machine_names_are_unique_and_short(tmp_path: Path) -> None:
    one = a_host(tmp_path, "a" * 63)
    assert len(one.machine) <= 64
    assert one.machine.startswith("ck-0123456789-")


def test_a_path_that_overlayfs_cannot_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="comma"):
        a_host(tmp_path / "a,b").argv(unit=False)


def test_last_words_are_plain(tmp_path: Path) -> None:
    one = a_host(tmp_path)
    assert "nothing" in one.words()
    one.console.write_text(
        "first\r\n\r\n[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1mssh\x1b[0m.\r\n"
    )
    assert one.words() == "first\n[  OK  ] Started ssh."
    assert one.words(1) == "[  OK  ] Started ssh."


def test_a_host_is_its_file(tmp_path: Path) -> None:
    assert host.read(tmp_path) is None
    (tmp_path / "host.json").write_text("{")
    with pytest.raises(ClusterError, match="cannot be read"):
        host.read(tmp_path)


def test_an_image_is_named_for_its_recipe() -> None:
    one = base.Recipe("debian-12")
    assert len(one.names()) == 1
    assert base.Recipe("debian-12", prepared=True).names()[0] == one.names()[0]
    others = {base.Recipe("debian-13").names(), base.Recipe("debian-12", "http://m/d").names()}
    assert len({one.names(), *others}) == 3


def test_expected_minutes(tmp_path: Path) -> None:
    recipe = base.Recipe("debian-12", prepared=True)
    assert recipe.minutes(tmp_path) == sum(base.MINUTES.values())
    for name in recipe.names():
        (tmp_path / name).mkdir()
    assert recipe.minutes(tmp_path) == 0


DEB822 = """Types: deb
# a comment
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm

Types: deb
URIs: https://tools.example/apt
Suites: nodistro
"""


def test_the_archives_of_this_machine() -> None:
    expected = {
        "main": "http://mirror.example/debian",
        "security": "http://mirror.example/debian-security",
    }
    assert sources.own([DEB822], "debian") == expected
    one_line = (
        "deb [signed-by=/k arch=amd64] http://mirror.example/debian/ bookworm main\n"
        "# deb http://no.example/debian bookworm main\n"
        "deb-src http://src.example/debian bookworm main\n"
        "deb http://mirror.example/debian-security bookworm-security main\n"
    )
    assert sources.own([one_line], "debian") == expected
    assert sources.own(["deb https://tools.example/apt stable main\n"], "debian") == {}


def test_the_sources_of_an_image() -> None:
    text = sources.sources("ubuntu-24.04", "http://m.example/ubuntu").text()
    assert text.count("Types: deb") == 1
    assert "Suites: noble noble-updates noble-security" in text
    text = sources.sources("debian-13", "http://m.example/debian").text()
    assert text.count("Types: deb") == 2
    assert "Suites: trixie-security" in text


def test_settings_of_apt_that_lead_to_the_mirrors() -> None:
    dump = (
        'APT "";\nAcquire "";\n'
        'Acquire::http::Proxy "http://p:3128";\nAcquire::Check-Date "false";\n'
        'Acquire::http::Proxy::m.example "DIRECT";\nAcquire::Languages "none";\n'
        'Acquire::cdrom::mount "/media";\nDPkg::Post-Invoke "";\nAcquire::https::CAInfo "/c";\n'
    )
    assert surroundings.apt_settings(dump).decode().splitlines() == [
        'Acquire::http::Proxy "http://p:3128";',
        'Acquire::Check-Date "false";',
        'Acquire::http::Proxy::m.example "DIRECT";',
        'Acquire::https::CAInfo "/c";',
    ]


def test_several_pip_conf_are_one() -> None:
    assert surroundings.merged_ini([]) == ""
    merged = surroundings.merged_ini(
        [
            "[global]\ncert = /c\nindex-url = http://a\n",
            "nonsense",
            "[global]\nindex-url = http://b\n",
        ]
    )
    assert "cert = /c" in merged
    assert "http://b" in merged
    assert "http://a" not in merged


def test_folders_that_package_indexes_are_in() -> None:
    text = (
        "[global]\ncert = /etc/ssl/c.crt\nfind-links = /opt/wheels\n"
        "extra-index-url = file:///srv/simple/ https://host/simple\nhttp://host/opt/x\n"
    )
    assert surroundings.local_folders(text) == ["/opt/wheels", "/srv"]


def test_variables_that_are_taken_over() -> None:
    taken = surroundings.read(
        {"https_proxy": "http://p", "PIP_INDEX_URL": "http://i", "TOKEN": "secret", "PATH": "/x"}
    )
    assert dict(taken.environment) == {"https_proxy": "http://p", "PIP_INDEX_URL": "http://i"}
    (file,) = [one for one in taken.files if one.path == "/etc/environment"]
    assert file.content == b'PIP_INDEX_URL="http://i"\nhttps_proxy="http://p"\n'


def test_all_that_is_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(needs.shutil, "which", lambda _: None)
    with pytest.raises(ClusterError) as caught:
        needs.check()
    words = str(caught.value)
    assert "root" in words
    assert "apt-get install" in words
    for package in ("systemd-container", "debootstrap", "nftables"):
        assert package in words
