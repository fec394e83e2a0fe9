"""The observer keeps every rule of the kit."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator

import pytest
from htcgrid.spi import Observer
from htcgrid_contracts import ObserverContract, contract_function

from htcgrid_prometheus.prometheus_observer import PrometheusObserver


class TestPrometheus(ObserverContract):
    @pytest.fixture
    def observer(self) -> PrometheusObserver:
        return PrometheusObserver(PrometheusObserver.Config(address="127.0.0.1:0"), contract_function())

    @pytest.fixture
    def missing(self) -> Iterator[PrometheusObserver]:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            yield PrometheusObserver(PrometheusObserver.Config(address=f"127.0.0.1:{port}"), contract_function())

    def shown(self, observer: Observer) -> str:
        assert isinstance(observer, PrometheusObserver)
        with urllib.request.urlopen(f"http://127.0.0.1:{observer.port}/metrics") as answer:
            text: str = answer.read().decode()
        assert "htcgrid_tasks_total" in text
        return text
