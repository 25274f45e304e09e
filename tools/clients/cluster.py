"""A cluster of real processes on this machine, each of which can be killed: one `ackord serve` per node.

Owns the nodes' files, ports and processes. Does not know what is done with them.
"""

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from . import wire

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 15
# Below the range from which the kernel takes ports for outgoing connections: a restarted node must find its port free,
# and a client that knocks at a dead node's port from that very port would connect to itself.
PORTS = range(20_000, 32_000)
REPOSITORY = Path(__file__).resolve().parent.parent.parent


class ClusterError(Exception):
    """A node that can't be started or does not answer; a sentence for people."""


def find_binary(named: str | None) -> Path:
    """The program to run: the one named, or where `make build` puts it."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    binary = Path(named or os.environ.get("ACKORD_BINARY") or target / "release" / "ackord").resolve()
    if not os.access(binary, os.X_OK):
        raise ClusterError(f"there is no program {binary}; run `make build`, or name it with --binary")
    return binary


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens now."""
    ports: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise ClusterError("no free ports")


def end_with_parent() -> None:
    """Runs in a child before its program: it is killed when this process ends, however that happens."""
    parent_death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)


class Node:
    """One node: its files, and its process while it runs."""

    def __init__(self, number: int, directory: Path, binary: Path, ports: dict[str, int]):
        self.number = number
        self.binary = binary
        self.ports = ports
        self.config = directory / f"node{number}.toml"
        self.data = directory / f"node{number}"
        self.log = directory / f"node{number}.log"
        self.process: subprocess.Popen | None = None

    def address(self, listener: str) -> str:
        return f"127.0.0.1:{self.ports[listener]}"

    def start(self) -> None:
        with open(self.log, "ab") as log:
            command = [self.binary, "serve", "--config", self.config]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=end_with_parent)

    def kill(self) -> None:
        """kill -9: nothing is flushed, nobody is told."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> bool:
        """Asks the node to stop; whether it did, in time and without complaint."""
        if self.process is None or self.process.poll() is not None:
            return True
        self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS_MAX) == 0
        except subprocess.TimeoutExpired:
            self.kill()
            return False


class Cluster:
    """Three nodes in a directory of their own; `with` starts them, stops them and removes their files."""

    def __init__(self, binary: Path, keep: bool = False, cluster_settings: str = "", limits: str = ""):
        self.binary = binary
        self.keep = keep
        self.sections = f"[cluster]\n{cluster_settings}\n[limits]\n{limits}\n"
        self.directory = Path(tempfile.mkdtemp(prefix="ackord-"))
        self.nodes: list[Node] = []

    def __enter__(self) -> "Cluster":
        listeners = ["kafka", "native", "http", "peer"]
        ports = free_ports(3 * len(listeners))
        for number in (1, 2, 3):
            own = dict(zip(listeners, ports[len(listeners) * (number - 1) :]))
            self.nodes.append(Node(number, self.directory, self.binary, own))
        try:
            for node in self.nodes:
                node.config.write_text(self.config_of(node))
            format_nodes(self.binary, self.nodes)
            for node in self.nodes:
                node.start()
            self.wait_until_ready()
        except BaseException:
            self.__exit__(ClusterError, None, None)
            raise
        return self

    def __exit__(self, failure, _error, _traceback) -> None:
        processes = [node.process for node in self.nodes if node.process and node.process.poll() is None]
        for process in processes:
            process.terminate()
        in_order = all([node.stop() for node in self.nodes])
        if failure or self.keep:
            print(f"the nodes' files and logs are in {self.directory}")
        else:
            shutil.rmtree(self.directory)
        if not in_order and not failure:
            raise ClusterError("a node did not stop in an orderly way")

    def config_of(self, node: Node) -> str:
        listeners = "".join(f'{listener} = "{node.address(listener)}"\n' for listener in node.ports)
        peers = ", ".join(f'"{peer.number}@{peer.address("peer")}"' for peer in self.nodes)
        return (
            f'node_id = {node.number}\ndata_dir = "{node.data}"\npeers = [{peers}]\n\n[listeners]\n{listeners}\n'
            f"[wal]\nsegment_bytes = {64 << 20}\n{self.sections}"
        )

    @property
    def bootstrap(self) -> str:
        """Every node's Kafka address, as clients want it."""
        return ",".join(node.address("kafka") for node in self.nodes)

    def node(self, number: int) -> Node:
        return self.nodes[number - 1]

    def wait_until_ready(self) -> None:
        """Waits until every node answers Kafka clients and knows all others to be alive."""
        deadline = time.monotonic() + START_SECONDS_MAX
        for node in self.nodes:
            while not self.is_ready(node):
                if node.process.poll() is not None:
                    raise ClusterError(f"node {node.number} has ended: {last_lines(node.log)}")
                if time.monotonic() > deadline:
                    raise ClusterError(f"node {node.number} is not ready: {last_lines(node.log)}")
                time.sleep(0.02)

    def is_ready(self, node: Node) -> bool:
        try:
            return wire.nodes_alive(node.address("kafka")) == len(self.nodes)
        except OSError:
            return False


def last_lines(log: Path, count: int = 5) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:]) if log.exists() else "(no log)"


def format_nodes(binary: Path, nodes: list[Node]) -> None:
    """Makes the nodes' data directories ready."""
    numbers = ",".join(str(node.number) for node in nodes)
    plan = run(binary, "format", "--new-cluster", numbers)
    # It prints the command for every node: ackord format --config node.toml --cluster-id=… --voters=…
    identity = plan.split()[4:]
    for node in nodes:
        run(binary, "format", "--config", node.config, *identity)


def run(binary: Path, *arguments) -> str:
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=START_SECONDS_MAX)
    if done.returncode != 0:
        raise ClusterError(f"ackord {arguments[0]}: {done.stderr}")
    return done.stdout
