"""The observer keeps every rule of the kit, with a receiver and without one."""

from __future__ import annotations

import pytest
from htcgrid.spi import Observer
from htcgrid_contracts import ObserverContract, contract_function
from otlp_receiver import Receiver

from htcgrid_otel.otel_observer import OtelObserver


class TestOtel(ObserverContract):
    wait_factor = 3.0  # the receiver runs in this process as well, and decodes what comes

    @pytest.fixture(autouse=True)
    def _receiver(self, received: Receiver) -> None:
        self.received = received

    @pytest.fixture
    def observer(self) -> OtelObserver:
        return OtelObserver(OtelObserver.Config(), contract_function())

    @pytest.fixture
    def missing(self, monkeypatch: pytest.MonkeyPatch) -> OtelObserver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        return OtelObserver(OtelObserver.Config(), contract_function())

    def shown(self, observer: Observer) -> str:
        self.received.wait(lambda: any(span.is_error for span in self.received.spans))
        self.received.wait(lambda: any(span.name.startswith("put") for span in self.received.spans))
        return str(self.received.spans)


class TestOtelWithoutAReceiver(ObserverContract):
    @pytest.fixture
    def observer(self, monkeypatch: pytest.MonkeyPatch) -> OtelObserver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        return OtelObserver(OtelObserver.Config(), contract_function())
