"""A real Apache Kafka on this machine: brokers from Maven, in KRaft mode, on free ports, each a process of its own.

`python -m tools.kafka.broker` runs one in the foreground until Ctrl-C.
"""

from __future__ import annotations

import base64
import fcntl
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from tools.ports import free_ports

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
CACHE = HERE.parent.parent / "build" / "kafka"
START_S = 60.0
FETCH_S = 300.0
STOP_S = 15.0
HEAP = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
SUPER_USER = "User:ANONYMOUS"


class KafkaMissing(Exception):
    """Why there can be no broker on this machine, and how to get one."""


class KafkaFailed(Exception):
    """A broker, or the tool that prepares its folder, ended with an error."""


class Node:
    """One broker, which is also one of the cluster's controllers."""

    def __init__(self, number: int, folder: Path, ports: Mapping[str, int], heap: Sequence[str]) -> None:
        self.number = number
        self.folder = folder
        self.ports = ports
        self._heap = heap
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.ports['PLAINTEXT']}"

    @property
    def properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        """Start it on its data; returns at once."""
        command = [*dies_with_us(), *_java(self._heap), "kafka.Kafka", str(self.properties)]
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def wait(self) -> None:
        """Until it takes connections."""
        deadline = time.monotonic() + START_S
        while True:
            code = None if self._process is None else self._process.poll()
            if code is not None or time.monotonic() > deadline:
                tail = (self.folder / "broker.log").read_text(errors="replace")[-2000:]
                raise KafkaFailed(f"The broker did not start (exit code {code}): {tail}")
            try:
                socket.create_connection(("127.0.0.1", self.ports["PLAINTEXT"]), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """SIGKILL: as a power cut of the process, not of the disk."""
        self._end(signal.SIGKILL)

    def stop(self, within_s: float = STOP_S) -> None:
        """An orderly end; by force after so long."""
        self._end(signal.SIGTERM, within_s)

    def pause(self) -> None:
        """SIGSTOP: its connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals, within_s: float = STOP_S) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Cluster:
    """Brokers that know each other."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes

    @property
    def bootstrap(self) -> str:
        return ",".join(node.bootstrap for node in self.nodes)

    def address(self, listener: str) -> str:
        """Where the first broker is reached through one of its further listeners."""
        return f"127.0.0.1:{self.nodes[0].ports[listener]}"

    def close(self) -> None:
        for node in self.nodes:
            node.kill()


@contextmanager
def cluster(
    folder: Path,
    *,
    nodes: int = 1,
    listeners: Mapping[str, str] | None = None,
    advertised: Mapping[str, int] | None = None,
    more: str = "",
    scram: Sequence[str] = (),
    heap: Sequence[str] = HEAP,
) -> Iterator[Cluster]:
    """A fresh cluster in an empty folder, gone at the end.

    `listeners` names further listeners and their protocols, `advertised` the port that clients of a listener are
    told (a proxy's); `more` is appended to each server.properties, `scram` are users as the storage tool takes them.
    """
    libraries()
    protocols = {"PLAINTEXT": "PLAINTEXT", **(listeners or {})}
    ports = [dict(zip([*protocols, "CONTROLLER"], free_ports(len(protocols) + 1), strict=True)) for _ in range(nodes)]
    voters = _voters(ports)
    made = []
    for number, one in enumerate(ports, 1):
        node = Node(number, folder / f"broker-{number}", one, heap)
        node.folder.mkdir(parents=True)
        node.properties.write_text(_properties(node, nodes, voters, protocols, advertised or {}) + more)
        made.append(node)
    _format(made, _new_id(), scram)
    running = Cluster(made)
    try:
        for node in made:
            node.start()
        for node in made:
            node.wait()
        yield running
    finally:
        running.close()


@contextmanager
def lasting(folder: Path, *, port: int | None = None) -> Iterator[Node]:
    """One broker whose records stay in the folder from one run to the next; its port is another each time."""
    libraries()
    free = free_ports(2)
    ports = {"PLAINTEXT": port or free[0], "CONTROLLER": free[1]}
    node = Node(1, folder, ports, HEAP)
    node.folder.mkdir(parents=True, exist_ok=True)
    node.properties.write_text(_properties(node, 1, _voters([ports]), {"PLAINTEXT": "PLAINTEXT"}, {}))
    if not (node.data / "meta.properties").exists():
        _format([node], _new_id(), ())
    try:
        node.start()
        node.wait()
        yield node
    finally:
        node.stop()


def missing() -> str | None:
    """What this machine lacks for a broker and how to get it; None where nothing."""
    needed = ["java"] if _folder().is_dir() else ["java", "mvn"]
    lacking = [tool for tool in needed if shutil.which(tool) is None]
    if not lacking:
        return None
    return f"no {' and no '.join(lacking)} here; on Debian: apt-get install openjdk-17-jre-headless maven"


def libraries(say: Callable[[str], None] = lambda _: None) -> Path:
    """The folder of Kafka's jars, fetched by Maven on the first call, which takes long enough to say so.

    Raises KafkaMissing.
    """
    lacking, folder = missing(), _folder()
    if lacking is not None:
        raise KafkaMissing(lacking)
    if folder.is_dir() and _classes().exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "fetching").open("w") as lock, tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():  # else another process fetched it while this one waited
            say(f"fetching Apache Kafka {folder.name} with Maven (43 MB, once)")
            fetched = Path(scratch) / "libs"
            _fetch(fetched)
            fetched.rename(folder)
        if not _classes().exists():
            _prepare_classes(Path(scratch))
    return folder


def dies_with_us(number: str = "KILL") -> list[str]:
    """The words before a command that is sent this signal when we die; none where util-linux is missing."""
    return ["setpriv", "--pdeathsig", number] if shutil.which("setpriv") else []


def _fetch(folder: Path) -> None:
    try:
        done = subprocess.run(
            ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime",
             f"-DoutputDirectory={folder}"],
            capture_output=True, text=True, timeout=FETCH_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise KafkaMissing(
            f"Maven did not fetch Kafka within {FETCH_S:.0f} s; is there a way to its repository?"
        ) from None
    if done.returncode != 0:
        said = next((line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line), "")
        raise KafkaMissing(f"Maven could not fetch Kafka: {said[:300]}")


def _prepare_classes(scratch: Path) -> None:
    """Let a broker write down the classes that it has loaded when it ends: those after it start in half the time."""
    made = scratch / "classes"
    ports = dict(zip(("PLAINTEXT", "CONTROLLER"), free_ports(2), strict=True))
    node = Node(1, scratch / "broker", ports, [*HEAP, f"-XX:ArchiveClassesAtExit={made}"])
    node.folder.mkdir()
    node.properties.write_text(_properties(node, 1, _voters([ports]), {"PLAINTEXT": "PLAINTEXT"}, {}))
    _format([node], _new_id(), ())
    node.start()
    try:
        node.wait()
    finally:
        node.stop(FETCH_S)
    made.touch()  # where this Java writes none, it is not asked again
    made.rename(_classes())


def _java(heap: Sequence[str]) -> list[str]:
    # An archive that does not fit this Java is passed over by it.
    shared = ["-XX:+IgnoreUnrecognizedVMOptions", f"-XX:SharedArchiveFile={_classes()}"] if _classes().exists() else []
    return ["java", *heap, *shared, "-cp", f"{_folder()}/*"]


def _new_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _folder() -> Path:
    namespace = "{http://maven.apache.org/POM/4.0.0}"
    return CACHE / str(ElementTree.parse(POM).findtext(f".//{namespace}kafka.version"))


def _classes() -> Path:
    return _folder().with_name(f"{_folder().name}.jsa")


def _voters(ports: Sequence[Mapping[str, int]]) -> str:
    return ",".join(f"{number}@127.0.0.1:{one['CONTROLLER']}" for number, one in enumerate(ports, 1))


def _properties(
    node: Node, nodes: int, voters: str, protocols: Mapping[str, str], advertised: Mapping[str, int]
) -> str:
    replicas = min(3, nodes)
    listened = {**protocols, "CONTROLLER": "PLAINTEXT"}
    settings = {
        "process.roles": "broker,controller",
        "node.id": node.number,
        "controller.quorum.voters": voters,
        "listeners": ",".join(f"{name}://127.0.0.1:{node.ports[name]}" for name in listened),
        "advertised.listeners": ",".join(
            f"{name}://127.0.0.1:{advertised.get(name, node.ports[name])}" for name in protocols
        ),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in listened.items()),
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": node.data.absolute(),
        "default.replication.factor": replicas,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": 1,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "auto.create.topics.enable": "false",
        # A killed broker of three is given up after this long, and others lead its partitions.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "num.network.threads": 2,
        "num.io.threads": 2,
        "log.cleaner.dedupe.buffer.size": 2 << 20,
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def _format(nodes: Sequence[Node], cluster_id: str, scram: Sequence[str]) -> None:
    running = []
    for node in nodes:
        users = [word for user in scram for word in ("--add-scram", user)]
        command = _java(("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"))
        command += [
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster_id}",
            "-c",
            str(node.properties),
            *users,
        ]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    for process in running:
        said, _ = process.communicate(timeout=START_S)
        if process.returncode != 0:
            raise KafkaFailed(f"Kafka's folder cannot be prepared: {said.decode(errors='replace')[-2000:]}")


def _main() -> None:
    with tempfile.TemporaryDirectory() as scratch, cluster(Path(scratch)) as running:
        print(running.bootstrap, flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    _main()
