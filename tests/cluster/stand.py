"""A Ray cluster of several raylets on this machine, and the application on it as `serve deploy` puts it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAME = "infold"
# Fewer seconds until a node that is gone is known to be.
SYSTEM = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "infold.cluster.proxies:middlewares",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_enable_metrics_collection": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # by which Ray means: not on the loopback alone
}


class Stand:
    """A head without room for replicas, and two nodes with room.

    Args:
        config: Of the application, as `applications[0]` of a Serve config file.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        from ray.cluster_utils import Cluster

        self.ports = free_ports(3)
        self.config = config
        local = {"node_ip_address": "127.0.0.1", "include_dashboard": False}
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": SYSTEM, **local}
        )
        self.workers = [
            self.cluster.add_node(
                wait=False, num_cpus=6, env_vars={"RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(port)}, **local
            )
            for port in self.ports[1:]
        ]
        self.cluster.wait_for_nodes()
        self.cluster.connect()

    def deploy(self, **user_configs: dict[str, Any]) -> None:
        """The application as its config says, and deployments with other user configs."""
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        deployments = [{"name": name, "user_config": said} for name, said in user_configs.items()]
        application = {**self.config, "deployments": deployments}
        config = {
            "proxy_location": "EveryNode",
            "http_options": {"host": "127.0.0.1", "port": self.ports[0]},
            "applications": [application],
        }
        from ray import serve

        serve.start(proxy_location="EveryNode", http_options=config["http_options"])
        _get_global_client().deploy_apps(ServeDeploySchema(**config), _blocking=True)
        until(lambda: self.status() == "RUNNING", f"deployed: {self.status}")

    def status(self) -> str:
        """Of the application."""
        from ray import serve

        found = serve.status().applications.get(NAME)
        if found is not None and str(found.status) == "DEPLOY_FAILED":
            raise AssertionError(found)
        return "" if found is None else str(found.status.value)

    def replicas(self, deployment: str) -> int:
        """How many run."""
        from ray import serve

        states = serve.status().applications[NAME].deployments[deployment].replica_states
        return int(states.get("RUNNING", 0))

    def pids(self, deployment: str) -> list[int]:
        """Processes of a deployment's replicas, of this cluster and no other, on nodes that are left."""
        raylets = {each[0].process.pid for node in self.workers if (each := node.all_processes.get("raylet"))}
        title = f"ray::ServeReplica:{NAME}:{deployment}"
        return [pid for pid in _children(raylets) if _title(pid).startswith(title)]

    def crash(self, deployment: str) -> float:
        """All of its replicas die without a word; the seconds until as many are back."""
        before = self.pids(deployment)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        return until(lambda: self.has_back(deployment, len(before), before), f"{deployment} is back")

    def has_back(self, deployment: str, count: int, gone: Collection[int] = ()) -> bool:
        """So many replicas of a deployment run, or more, in processes that are there."""
        now = set(self.pids(deployment)).difference(gone)
        return len(now) >= count and self.replicas(deployment) >= count

    def kill_node(self, index: int) -> None:
        """A node and everything on it is gone."""
        self.cluster.remove_node(self.workers[index], allow_graceful=False)
        del self.workers[index]

    def close(self) -> None:
        """Nothing of it is left."""
        import ray
        from ray import serve

        serve.shutdown()
        ray.shutdown()
        self.cluster.shutdown()


@contextmanager
def stand(config: dict[str, Any], folder: Path) -> Iterator[Stand]:
    """A cluster with the application on it.

    Args:
        config: Of the application.
        folder: With a path short enough for a socket.
    """
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = str(folder)
    found = None
    try:
        found = Stand(config)
        found.deploy()
        yield found
    finally:
        if found is not None:
            found.close()
        if before is None:
            del os.environ["RAY_TMPDIR"]
        else:
            os.environ["RAY_TMPDIR"] = before


def until(holds: Callable[[], bool], what: str, timeout_s: float = 60) -> float:
    """Wait until something holds; the seconds that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < timeout_s, what
        time.sleep(0.1)
    return time.monotonic() - began


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _children(parents: set[int]) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if int(words[1]) in parents:
                found.append(int(folder.name))
    return found


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
