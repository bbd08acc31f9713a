"""Counts of the service for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # of Prometheus' text format


class Metrics:
    """The metrics of one service.

    Attributes:
        requests: Answered requests by status code.
        texts: Classified texts.
        seconds: Time to answer a prediction, from its complete body on.
        in_queue: Requests that are computed or wait.
        connections: Open connections.
        refused: Connections refused because too many were open.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prefix = "featherweight"
        self.requests = Counter(
            "requests", "Answered requests", ["status"], prefix, registry=self.registry
        )
        self.texts = Counter("texts", "Classified texts", (), prefix, registry=self.registry)
        self.seconds = Histogram(
            "predict_seconds", "Time to answer a prediction", (), prefix, registry=self.registry,
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
        )  # fmt: skip
        self.in_queue = 0
        Gauge(
            "queue", "Requests that are computed or wait", (), prefix, registry=self.registry
        ).set_function(lambda: self.in_queue)
        self.connections = Gauge(
            "connections", "Open connections", (), prefix, registry=self.registry
        )
        self.refused = Counter(
            "refused_connections", "Connections refused because too many were open", (), prefix,
            registry=self.registry,
        )  # fmt: skip

    def text(self) -> bytes:
        """Returns all values in Prometheus' text format."""
        return generate_latest(self.registry)
