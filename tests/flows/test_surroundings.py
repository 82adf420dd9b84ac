"""What a command sets in its environment: this machine's own servers are reached without proxy."""

import os

import pytest

from flows.cli.surroundings import spare_loopback

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("http_proxy", "", "localhost,127.0.0.1,::1"),
        ("HTTPS_PROXY", "intern.example", "intern.example,localhost,127.0.0.1,::1"),
        ("all_proxy", "127.0.0.1,x", "127.0.0.1,x,localhost,::1"),
    ],
)
def test_loopback_is_spared_and_what_was_spared_stays(monkeypatch, name, before, after):
    monkeypatch.setenv(name, "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", before)
    monkeypatch.setenv("NO_PROXY", "")
    spare_loopback()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == after


def test_nothing_is_set_where_there_is_no_proxy(monkeypatch):
    spare_loopback()
    assert "no_proxy" not in os.environ and "NO_PROXY" not in os.environ
