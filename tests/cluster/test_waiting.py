"""What a command says while it waits for Ray on a busy machine, and for how long it waits. All clocks are injected."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from cluster import StageError, address, connect, session, waiting
from factory.console import OutputOptions, ProgressDisplay, run_command


class Clock:
    """Seconds that pass only by waiting."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class StopAfter:
    """An event whose `wait` lets time pass at once, and that is set after `limit_s` seconds."""

    clock: Clock
    limit_s: float
    done: threading.Event

    def __init__(self) -> None:
        self.set_by_block = False

    def wait(self, pause: float) -> bool:
        if self.clock.now + pause > self.limit_s:
            self.done.set()
            return True
        self.clock.now += pause
        return False

    def set(self) -> None:
        self.set_by_block = True


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(session, "time", SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep))
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return clock


def wait_for(seconds: float, clock: Clock, monkeypatch, awaited: str, detail: str = "") -> None:
    """Run a block of `waiting_notices` for which `seconds` pass."""
    StopAfter.clock, StopAfter.limit_s, StopAfter.done = clock, seconds, threading.Event()
    monkeypatch.setattr(waiting, "threading", SimpleNamespace(Event=StopAfter, Thread=threading.Thread))
    with waiting.waiting_notices(awaited, detail):
        assert StopAfter.done.wait(30)


def test_notices_name_what_is_awaited_and_come_at_10_s_and_then_every_20_s(clock, monkeypatch, caplog):
    with caplog.at_level(logging.WARNING, "cluster"):
        wait_for(75, clock, monkeypatch, "Ray to start on this machine", "attempt 2 of 3")
    assert caplog.messages == [
        f"waiting for Ray to start on this machine (attempt 2 of 3, {s} s so far)" for s in (10, 30, 50, 70)
    ]


def test_a_short_wait_says_nothing(clock, monkeypatch, caplog):
    with caplog.at_level(logging.WARNING, "cluster"):
        wait_for(9, clock, monkeypatch, "Ray to start on this machine")
    assert caplog.messages == []


@pytest.mark.parametrize(("options", "shown"), [({}, True), ({"json": True}, True), ({"quiet": True}, False)])
def test_commands_show_the_notices(options, shown, clock, monkeypatch, capsys):
    with ProgressDisplay(OutputOptions(**options)):
        wait_for(35, clock, monkeypatch, "Ray to start on this machine", "attempt 1 of 3")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (2 if shown else 0)
    for line, seconds in zip(lines, (10, 30), strict=False):
        assert f"waiting for Ray to start on this machine (attempt 1 of 3, {seconds} s so far)" in line


@pytest.fixture
def slow_ray(clock, monkeypatch) -> Iterator[SimpleNamespace]:
    """A Ray whose node registers after `node.registers_s` seconds of each attempt; Ray's own patience is 30 s."""
    import ray
    from ray._private import services

    node = SimpleNamespace(registers_s=0.0, attempts=0, waited=[])

    def get_node(*_: object) -> str:
        if clock.now - node.started < node.registers_s:
            raise RuntimeError("not registered")
        return "node"

    def init(**_: object) -> None:
        node.attempts += 1
        node.started = clock.now
        try:
            while True:  # as Ray does: the time is checked after each failure
                try:
                    services.get_node("gcs", "node")
                    return
                except RuntimeError:
                    if clock.now - node.started > 30:
                        raise Exception("The current node timed out during startup.") from None
                    clock.sleep(0.5)
        finally:
            node.waited.append(clock.now - node.started)

    monkeypatch.setattr(services, "get_node", get_node)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    yield node
    assert services.get_node is get_node, "Ray's own function is back"


def test_a_node_that_registers_after_100_s_is_waited_for(slow_ray):
    slow_ray.registers_s = 100.0
    with connect(1):
        pass
    assert slow_ray.attempts == 1 and 100 <= slow_ray.waited[0] < 101


def test_after_three_attempts_of_two_minutes_the_error_names_workers_0(slow_ray, capsys):
    slow_ray.registers_s = 1e9
    code = run_command("factory.render", lambda: connect(1).__enter__() and 0)
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 1 and slow_ray.attempts == 3
    assert all(120 <= seconds < 121 for seconds in slow_ray.waited)
    assert "Ray did not start in 3 attempts of 120 s each, because this machine is too busy" in line
    assert "With --workers 0, most commands run in one process without Ray" in line


def test_auto_with_a_dead_ray_is_refused_within_a_bounded_time(clock, monkeypatch):
    """What is left of a Ray accepts connections and never answers: one request with a deadline, no retries."""
    from ray._private import services

    asked = []

    class Silent:
        def unary_unary(self, name: str):
            def call(_: bytes, timeout: float) -> None:
                import grpc

                asked.append(timeout)
                error = grpc.RpcError()
                error.code = lambda: grpc.StatusCode.DEADLINE_EXCEEDED
                raise error

            return call

        def close(self) -> None:
            asked.append("closed")

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        monkeypatch.setattr("ray.is_initialized", lambda: False)
        monkeypatch.setattr(services, "get_ray_address_from_environment", lambda *_: f"127.0.0.1:{port}")
        monkeypatch.setattr(services, "get_node_ip_address", lambda: "127.0.0.1")
        monkeypatch.setattr("ray._private.grpc_utils.init_grpc_channel", lambda _: Silent())
        with pytest.raises(
            StageError, match=r"RAY_ADDRESS=auto, which is .*nothing answered within 20 s.*ray stop"
        ):
            connect(1).__enter__()
    assert asked == [20.0, "closed"] and address.CONNECT_S + address.ANSWER_S <= 30


def test_auto_without_any_ray_is_a_sentence(monkeypatch):
    from ray._private import services

    def none(*_: object) -> str:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr(services, "get_ray_address_from_environment", none)
    with pytest.raises(
        StageError, match=r"RAY_ADDRESS=auto: no Ray runs on this machine; start one with `ray start"
    ):
        connect(1).__enter__()
