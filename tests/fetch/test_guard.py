"""Addresses by the registries of IANA (RFC 6890) and the clouds' own documents."""

import socket

import pytest

from coyo_labeler.fetch.guard import ForbiddenAddressError, Guard

PUBLIC = ["93.184.215.14", "2606:2800:21f:cb07::1", "64:ff9b::5db8:d70e", "::ffff:93.184.215.14"]
PRIVATE = [
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "fd12:3456:789a::1",
    "fec0::1",  # site-local, deprecated
    "::ffff:10.0.0.1",  # IPv4-mapped
    "64:ff9b::a00:1",  # NAT64 of 10.0.0.1
]
LOOPBACK = ["127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1"]
NEVER = [
    "169.254.169.254",  # cloud metadata
    "fd00:ec2::254",
    "fd00:ec2::23",  # credentials of AWS's containers
    "fd20:ce::254",  # Google
    "fd00:42::42",  # Scaleway
    "fd00:c1::a9fe:a9fe",  # Oracle
    "64:ff9b:1::a9fe:a9fe",  # NAT64 inside a network
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",  # 6to4
    "169.254.1.1",  # link-local
    "fe80::1",
    "224.0.0.1",  # multicast
    "ff02::1",
    "0.0.0.0",
    "::",
    "240.0.0.1",  # reserved
    "255.255.255.255",
    "not an address",
    "localhost",
]


def allowed(guard, addresses):
    return [address for address in addresses if guard.allows(address)]


def test_the_public_internet_alone_is_open():
    assert allowed(Guard(), [*PUBLIC, *PRIVATE, *LOOPBACK, *NEVER]) == PUBLIC


def test_private_addresses_can_be_let_through_but_never_the_metadata():
    guard = Guard(allow_private=True)
    assert allowed(guard, [*PUBLIC, *PRIVATE, *LOOPBACK, *NEVER]) == [*PUBLIC, *PRIVATE, *LOOPBACK]


def test_without_a_contact_only_loopback_is_open():
    guard = Guard(allow_private=True, loopback_only=True)
    assert allowed(guard, [*PUBLIC, *PRIVATE, *LOOPBACK, *NEVER]) == LOOPBACK


def test_no_socket_is_made_for_a_forbidden_address():
    info = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("10.0.0.1", 80))
    with pytest.raises(ForbiddenAddressError):
        Guard().socket_factory(info)
    with Guard(allow_private=True).socket_factory(info) as made:
        assert made.family == socket.AF_INET
