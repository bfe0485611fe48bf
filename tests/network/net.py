"""A network of the test's own: this process, a router, and the engine's host.

    this process  vh<pid> ---- client  router  engine ---- host  the engine

Router and host are network namespaces, the dashes pairs of veth devices. What befalls packets
happens at the router: a rule at their sender would not lose them but make its send fail.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest
from network.commands import do, listed, try_to
from network.host import Host
from network.relay import Relay
from support import wait_until


FROM_CLIENT, FROM_ENGINE = 'iifname "client"', 'iifname "engine"'
BOTH_WAYS = 'iifname { "client", "engine" }'

_RULES = """
table ip way {{
    chain forward {{
        type filter hook forward priority 0
        {passing}
    }}
    chain output {{
        type filter hook output priority 0
        {own}
    }}
}}
"""
_REMOVAL = """
cat > /dev/null
ip link delete {device}
ip route delete unreachable {addresses} metric 1000
ip netns delete {far}
ip netns delete {router}
"""
_BASE = IPv4Address("10.0.0.0") + 4 * os.getpid()
"""The first of four addresses that no other live process takes: Linux has 2**22 process ids."""


@dataclass(frozen=True)
class Line:
    """What is lasting about the link to this process, in the direction of this process.

    Attributes:
        qdisc: As `tc` takes it; "" for none.
        latency: Seconds; for a relay where the kernel has no such qdisc.
        rate: Bytes a second; likewise.
    """

    qdisc: str = ""
    latency: float = 0.0
    rate: float = math.inf


class Network:
    """Makes it all and removes it; a context manager.

    Entering it skips the test where we are not root, or where the system refuses.

    Args:
        line: Of the link to this process.

    Attributes:
        host: Where the engine runs, once it is started.
        means: What `line` is made of here.
    """

    def __init__(self, line: Line = Line()) -> None:
        pid = os.getpid()
        self.means = "nftables"
        self._line = line
        self._device = f"vh{pid}"
        self._router, self._far = f"vllm-http-{pid}-router", f"vllm-http-{pid}-host"
        self._us, self._gateway, self._engine = (str(_BASE + i) for i in (1, 2, 3))
        self._relay: Relay | None = None
        self._remover: subprocess.Popen[bytes] | None = None
        self.host = Host(self._far, self._engine)

    def __enter__(self) -> Network:
        if os.geteuid() != 0:
            pytest.skip("only root may make network namespaces")
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        self.host.kill()
        if self._relay is not None:
            self._relay.close()
        if self._remover is not None:
            self._remover.communicate()
        wait_until(lambda: self.traces() == [])

    def traces(self) -> list[str]:
        """What the system has of this network: namespaces, devices, routes."""
        names = (self._router, self._far, self._device, f"{_BASE}/30", self._us, self._engine)
        lists = ("netns list", "-o link show", "-o address show", "route show table all")
        lines = [line for asked in lists for line in listed("ip", *asked.split())]
        return [line for line in lines if any(name in _words(line) for name in names)]

    # What befalls it.

    def rule(self, passing: str, own: str = "") -> None:
        """Have the router treat packets that pass by this nftables rule, instead of the last one.

        Args:
            passing: For packets that it passes on.
            own: For packets of its own: ICMP errors.
        """
        self.heal()
        rules = _RULES.format(passing=passing, own=own)
        self._in_router("nft", "-f", "-", given=rules)

    def heal(self) -> None:
        """Pass on all packets again."""
        self._in_router("nft", "flush", "ruleset")

    @property
    def dropped(self) -> int:
        """How many packets the rule's counters have counted."""
        lines = listed("ip", "netns", "exec", self._router, "nft", "list", "ruleset")
        return sum(int(found) for found in re.findall(r"counter packets (\d+)", "\n".join(lines)))

    def mtu(self, client: int, engine: int) -> None:
        """Set the largest packet of the link to this process, and of the one to the engine.

        Both ends tell each other of 1500 bytes nevertheless, as if neither link were their own:
        each learns of the other's from the router's ICMP alone.
        """
        self._ip("", f"link set {self._device} mtu {client}", self._route_to_engine())
        self._ip(self._router, f"link set client mtu {client}", f"link set engine mtu {engine}")
        self._ip(self._far, f"link set host mtu {engine}")

    def link(self, state: str, *, engines: bool) -> None:
        """Have the engine's device "up" or "down", or that of this process."""
        if engines:
            self._ip(self._far, f"link set host {state}")
        else:
            self._ip("", f"link set {self._device} {state}")
        if state == "up":
            self._routes_of_ends()

    def vanish(self) -> None:
        """End the engine's host and its link; the link first, so that no last word gets out."""
        self._ip(self._router, "link delete engine")
        self.host.kill()
        do("ip", "netns", "delete", self._far)

    def come_back(self) -> None:
        """Make the host that has vanished anew, with an engine on it."""
        self._make_host()
        self.host.start()

    # How it is made.

    def _make(self) -> None:
        self._remover = self._start_remover()
        # A packet for an engine that is gone must not go on to whatever is outside.
        do("ip", *f"route add unreachable {_BASE}/30 metric 1000".split())
        do("ip", "netns", "add", self._router)
        self._in_router("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self._make_client_link()
        self._ip("", f"address add {self._us} peer {self._gateway} dev {self._device}")
        self._ip(self._router, f"address add {self._gateway} peer {self._us} dev client")
        self._ip(self._router, "link set client up", "link set lo up")
        self._ip("", f"link set {self._device} up", self._route_to_engine())
        self._make_host()
        self.heal()
        self.host.start()

    def _start_remover(self) -> subprocess.Popen[bytes]:
        """A process that removes all as soon as its pipe ends, with us at the latest."""
        names = {"device": self._device, "far": self._far, "router": self._router}
        return subprocess.Popen(
            ["sh", "-c", _REMOVAL.format(addresses=f"{_BASE}/30", **names)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # some are not there, if it was not all made
            start_new_session=True,  # ctrl-C is for us
        )

    def _make_client_link(self) -> None:
        device, line = self._device, self._line
        do("ip", *f"link add {device} type veth peer name client netns {self._router}".split())
        # Else 64 kB travel, and get lost, as one packet.
        self._ip("", f"link set {device} gso_max_segs 1")
        self._ip(self._router, "link set client gso_max_segs 1")
        if not line.qdisc:
            return
        self.means = line.qdisc.partition(" ")[0]
        attempt = f"-n {self._router} qdisc add dev client root {line.qdisc}".split()
        if try_to("tc", *attempt) is not None:
            self._ip("", f"link delete {device}")
            self._relay = Relay(device, f"{device}r", line.latency, line.rate)
            self._ip("", f"link set {device}r netns {self._router} name client")
            self.means = f"a relay between TUN devices, as there is no {self.means}"

    def _make_host(self) -> None:
        do("ip", "netns", "add", self._far)
        self._ip(self._router, f"link add engine type veth peer name host netns {self._far}")
        self._ip(self._router, "link set engine gso_max_segs 1", "link set engine up")
        self._ip(self._far, f"address add {self._engine} dev host")
        self._ip(self._far, "link set host gso_max_segs 1", "link set host up", "link set lo up")
        self._routes_of_ends()

    def _routes_of_ends(self) -> None:
        """Routes go with their device when it is down."""
        self._ip("", self._route_to_engine())
        self._ip(self._router, f"route replace {self._engine} dev engine")
        self._ip(self._far, f"route replace {self._gateway} dev host")
        self._ip(self._far, f"route replace default via {self._gateway} advmss 1460")

    def _route_to_engine(self) -> str:
        return f"route replace {self._engine} via {self._gateway} dev {self._device} advmss 1460"

    def _in_router(self, *command: str, given: str = "") -> None:
        do("ip", "netns", "exec", self._router, *command, given=given)

    def _ip(self, namespace: str, *lines: str) -> None:
        where = ["-n", namespace] if namespace else []
        do("ip", *where, "-batch", "-", given="\n".join(lines))


def _words(line: str) -> list[str]:
    return line.replace("@", " ").replace(":", " ").replace("/32", " ").split()
