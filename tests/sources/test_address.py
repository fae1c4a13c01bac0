from __future__ import annotations

import ipaddress

import pytest

from job.errors import AccessRefused, NotFound
from job.sources.address import is_global, resolve


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.127.255.254",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%1",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b::10.0.0.1",
        "2002:a9fe:a9fe::1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:f5ff:fffe",
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str):
    assert not is_global(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "100.63.255.255", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"],
)
def test_a_public_address_is_allowed(address: str):
    assert is_global(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "::1"])
def test_every_way_to_write_this_machine_is_refused(host: str):
    with pytest.raises(AccessRefused, match="no public address; it is refused"):
        resolve(host, 443, is_global, "Dataset x")


def test_one_private_address_among_public_ones_is_enough_to_refuse(
    monkeypatch: pytest.MonkeyPatch,
):
    answers = [(0, 0, 0, "", ("8.8.8.8", 443)), (0, 0, 0, "", ("10.0.0.1", 443))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: answers)
    with pytest.raises(AccessRefused, match=r"two\.example is 10\.0\.0\.1"):
        resolve("two.example", 443, is_global, "Dataset x")


def test_a_host_that_does_not_exist_is_not_found():
    with pytest.raises(NotFound, match=r"no host nowhere\.invalid"):
        resolve("nowhere.invalid", 443, is_global, "Dataset x")
