"""The address of a Ray cluster: its syntax, and whether a live cluster answers there.

Ray itself retries an address without a cluster for minutes, prints its internal log, and may end the process.
"""

from __future__ import annotations

import re
import socket

from cluster.stage import StageError

CONNECT_S = 10.0  # for a TCP connection to the cluster
ANSWER_S = 20.0  # for the answer to one request
_SYNTAX = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]@]+):(?P<port>\d{1,5})")
_REMEDY = "or unset RAY_ADDRESS to run on this machine alone"


def checked_address(address: str) -> str:
    """Check the syntax of RAY_ADDRESS.

    Returns:
        host:port; "" for "auto", which `check_cluster` looks up.

    Raises:
        StageError: it is neither "auto" nor host:port.
    """
    if "://" in address:
        raise StageError(
            f"RAY_ADDRESS={address} is the address of a job server, expected host:port of the cluster itself: run "
            f"this command with `ray job submit -- …`, or run it on a machine of the cluster with RAY_ADDRESS=host:6379"
        )
    if address == "auto":
        return ""
    match = _SYNTAX.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 2**16:
        raise StageError(
            f"RAY_ADDRESS={address!r} is not an address: expected host:port such as 10.0.0.1:6379, auto or local; "
            f"correct it, {_REMEDY}"
        )
    return address


def check_cluster(address: str, host_and_port: str) -> None:
    """Check that a Ray cluster answers, within about half a minute.

    Args:
        address: value of RAY_ADDRESS, for the error message.
        host_and_port: see `checked_address`.

    Raises:
        StageError: there is no cluster, or it does not answer.
    """
    host_and_port = _as_ray_resolves(host_and_port or _running_cluster())
    found = "" if host_and_port == address else f", which is {host_and_port}"
    host, _, port = host_and_port.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StageError(
            f"no Ray cluster answers at RAY_ADDRESS={address}{found} ({reason}): start one with `ray start --head` and "
            f"check host, port and firewall, {_REMEDY}"
        ) from None
    if reason := _silence(host_and_port):
        raise StageError(
            f"no Ray cluster answers at RAY_ADDRESS={address}{found}: something accepts connections, but {reason}. "
            f"Stop what is left of an earlier Ray with `ray stop` and start it again, correct the port, {_REMEDY}"
        )


def _running_cluster() -> str:
    """Address of the cluster that runs on this machine, as Ray finds it."""
    from ray._private import services

    try:
        return services.get_ray_address_from_environment("auto", None)
    except ConnectionError:
        raise StageError(
            f"RAY_ADDRESS=auto: no Ray runs on this machine; start one with `ray start --head`, {_REMEDY}"
        ) from None


def _as_ray_resolves(host_and_port: str) -> str:
    """Replace a loopback host by this machine's address, as Ray does: it cannot join a Ray that is on loopback only."""
    from ray._private import services

    host, _, port = host_and_port.rpartition(":")
    if host.strip("[]").lower() in ("localhost", "127.0.0.1", "::1"):
        return f"{services.get_node_ip_address()}:{port}"
    return host_and_port


def _silence(host_and_port: str) -> str:
    """Send one request to the cluster's control server. Returns why there was no answer, "" if there was one."""
    try:
        import grpc
        from ray._private.grpc_utils import init_grpc_channel
    except ImportError:  # another version of Ray, or one without ray[default]
        return ""
    channel = init_grpc_channel(host_and_port)
    try:
        channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=ANSWER_S)
    except grpc.RpcError as error:
        code = error.code()
        if code == grpc.StatusCode.UNAUTHENTICATED:
            return "that Ray requires a token (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN)"
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"nothing answered within {ANSWER_S:.0f} s"
        if code == grpc.StatusCode.UNAVAILABLE:
            return "what answers is not Ray"
    finally:
        channel.close()
    return ""  # any other reply comes from a live server


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without a full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
