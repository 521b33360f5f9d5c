"""The network of the stack: a bridge, a network namespace with an address for each container."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

_NETWORK = "10.89.0"


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


class Network:
    """Of all containers; services find each other by name.

    It belongs to the network namespace of this process, and /etc/hosts to its mount namespace.

    Args:
        names: of the services.
        folder: for the file of names and addresses.
    """

    def __init__(self, names: Iterable[str], folder: Path) -> None:
        self._addresses = {name: f"{_NETWORK}.{n}" for n, name in enumerate(names, start=2)}
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "stack", "type", "bridge")
        _run("ip", "address", "add", f"{_NETWORK}.1/24", "dev", "stack")
        _run("ip", "link", "set", "stack", "up")
        for number, (name, address) in enumerate(self._addresses.items()):
            outside, inside = f"veth{number}", "eth0"
            _run("ip", "netns", "add", name)
            _run("ip", "link", "add", outside, "type", "veth", "peer", inside, "netns", name)
            _run("ip", "link", "set", outside, "master", "stack", "up")
            within = ("ip", "-netns", name)
            _run(*within, "address", "add", f"{address}/24", "dev", inside)
            _run(*within, "link", "set", inside, "up")
            _run(*within, "link", "set", "lo", "up")
        hosts = folder / "hosts"
        lines = [f"{address} {name}" for name, address in self._addresses.items()]
        hosts.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]), encoding="utf-8")
        _run("mount", "--bind", str(hosts), "/etc/hosts")

    def enter(self, name: str) -> list[str]:
        """What comes before a command that runs in the namespace of a service."""
        return ["nsenter", f"--net=/run/netns/{name}"]
