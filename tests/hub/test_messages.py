"""What goes over a connection to the hub: whole, bounded, and of no use to who overhears it."""

import pytest

from pipelines.hub.hub_address import HubAddress, taken_address
from pipelines.hub.messages import BODY_BYTES, ProtocolError, body_length, head_of, message_of, proof_of, short_text, whole_number

ADDRESS = HubAddress("10.0.0.9", 7000, b"secret of the launch")


def test_a_message_is_a_line_and_its_bytes():
    line, _, body = message_of({"records": 3}, b"a\nb\n").partition(b"\n")
    head = head_of(line)
    assert (head["records"], body_length(head), body) == (3, 4, b"a\nb\n")
    assert message_of({}) == b"{}\n"


@pytest.mark.parametrize("line", [b"", b"\x80\x04\x95", b"[]", b"3", b"null", b"{", b"[" * 10_000, b"\xff\xfe"])
def test_what_is_no_object_is_refused(line):
    with pytest.raises(ProtocolError):
        head_of(line)


@pytest.mark.parametrize("value", [-1, BODY_BYTES + 1, 1.5, True, "4", None, [], 10**400])
def test_a_length_that_is_none_or_too_long_is_refused(value):
    with pytest.raises(ProtocolError):
        body_length({"bytes": value})


def test_fields_are_what_they_have_to_be():
    assert (whole_number({"rank": 3}, "rank", 3), short_text({"host": "a"}, "host")) == (3, "a")
    for head in ({}, {"rank": 4}, {"rank": -1}):
        with pytest.raises(ProtocolError, match="rank is not a number from 0 to 3"):
            whole_number(head, "rank", 3)
    for head in ({}, {"host": 3}, {"host": "a" * 9}):
        with pytest.raises(ProtocolError, match="host is not a text"):
            short_text(head, "host", 8)


def test_a_proof_is_of_one_connection_one_side_one_guest_and_one_rank():
    proofs = [proof_of(secret, by, nonces, guest, rank) for secret in (b"a", b"b") for by in ("guest", "hub")
              for nonces in (("m", "n"), ("n", "m")) for guest in ("rank", "task") for rank in (1, 11)]
    assert len(set(proofs)) == len(proofs)


def test_a_rank_takes_the_secret_out_of_its_environment():
    environment = {"MY_OWN": "kept", **ADDRESS.variables(5)}
    assert taken_address(environment) == (ADDRESS, 5)
    assert environment == {"MY_OWN": "kept"}
    assert taken_address(environment) is None


def test_the_secret_is_in_nothing_that_is_printed():
    assert "secret" not in repr(ADDRESS)
