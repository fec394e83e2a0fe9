"""The tally as Prometheus' metric families."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from htcgrid.spi import QueueStats
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from htcgrid_prometheus import catalogue
from htcgrid_prometheus.catalogue import Metric
from htcgrid_prometheus.tally import Tally

_STATES = ("waiting", "delayed", "leased", "cancelled", "dead")


def counted(tally: Tally) -> Iterator[Family]:
    """What was added up from observations."""
    by_metric: dict[Metric, dict[str, float]] = {}
    for (metric, label), number in tally.counters.items():
        by_metric.setdefault(metric, {})[label] = number
    for metric in catalogue.METRICS:
        if metric in by_metric:
            yield family(metric, by_metric[metric])
    yield family(catalogue.BUSY, {"": float(tally.seconds[catalogue.BUSY])})
    yield family(catalogue.AGENTS, {"": len(tally.agents)})
    for metric, buckets in tally.buckets.items():
        bounds, total = buckets.cumulative()
        histogram = HistogramMetricFamily(metric.name, metric.text)
        histogram.add_metric([], bounds, total)
        yield histogram


def asked(tally: Tally) -> Iterator[Family]:
    """Figures that the agents are asked for; none of them needs a call to a service."""
    agents = list(tally.agents)
    yield family(catalogue.SLOTS, {"": sum(figures.slots() for figures in agents)})
    busy = sum(figures.busy() for figures in agents)  # of a service's own environments no more is known
    yield family(catalogue.ENVIRONMENTS, {"busy": busy, "idle": max(0, len(tally.up) - busy)})
    yield family(catalogue.HELD, {"": sum(figures.held() for figures in agents)})
    yield family(catalogue.HELD_BYTES, {"": sum(figures.held_bytes() for figures in agents)})
    spent = tally.usage.with_running(agents)
    if spent.requests:
        yield family(catalogue.REQUESTS, dict(spent.requests))
    if spent.dollars is not None:
        yield family(catalogue.COST, {"": spent.dollars})


def queues(answers: Sequence[QueueStats]) -> Iterator[Family]:
    """What the sources have said."""
    states: Counter[str] = Counter()
    for stats in answers:
        states.update({name: number for name in _STATES if (number := getattr(stats.states, name)) is not None})
    if states:
        yield family(catalogue.QUEUE, states)
    oldest = [stats.oldest_seconds for stats in answers if stats.oldest_seconds is not None]
    if oldest:
        yield family(catalogue.OLDEST, {"": max(oldest)})


def family(metric: Metric, values: Mapping[str, float]) -> Family:
    """A counter or gauge with these values by the value of its label, "" where it has none."""
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    found: CounterMetricFamily | GaugeMetricFamily = kind(metric.name, metric.text, labels=metric.labels)
    for label, value in values.items():
        found.add_metric([label] if metric.labels else [], value)
    return found


def information(function: str, version: str) -> Family:
    found = GaugeMetricFamily(catalogue.INFO.name, catalogue.INFO.text, labels=catalogue.INFO.labels)
    found.add_metric([function, version], 1)
    return found
