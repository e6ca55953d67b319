"""Which addresses only this machine reaches, and what a `Host` header names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calls.hosts import host_of, is_loopback


def test_loopback_is_known() -> None:
    """All of 127/8, ::1 and localhost; nothing else."""
    asked = ("127.0.0.1", "127.1.2.3", "::1", "localhost", "10.0.0.1", "", "0.0.0.0", "localhost.example.org")
    assert [host for host in asked if is_loopback(host)] == ["127.0.0.1", "127.1.2.3", "::1", "localhost"]


@pytest.mark.parametrize(
    ("header", "host"),
    [("localhost", "localhost"), ("LocalHost:8501", "localhost"), ("[::1]:8001", "::1"), ("127.0.0.1:1", "127.0.0.1"),
     ("calls.example.org.", "calls.example.org"), ("", None), (":8501", None), ("a@localhost", None), (".", None),
     ("localhost/x", None), ("localhost:", None), ("local host", None), ("evil.example#localhost", None)],
)  # fmt: skip
def test_a_host_header_names_one_host_or_none(header: str, host: str | None) -> None:
    """With or without a port, brackets, a final dot; nothing hides in it."""
    assert host_of(header) == host


@given(st.text())
def test_any_text_is_a_host_or_not(header: str) -> None:
    """Nothing breaks."""
    host = host_of(header)
    assert host is None or host in header.lower()
