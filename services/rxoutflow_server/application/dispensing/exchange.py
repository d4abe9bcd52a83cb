"""The dispensing region at work: its records, and the way to the other regions."""

from __future__ import annotations

from dataclasses import dataclass

from rxoutflow_server.application.ports import PeerGateway, Peers, Store
from rxoutflow_server.application.region import Region, routed


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a command needs that has to ask other regions on its way."""

    region: Region
    store: Store
    peers: Peers

    def home_of(self, prescription_number: str) -> PeerGateway:
        """The home region of a prescription, by the first six digits of its number.

        Raises:
            Refusal: PRESCRIPTION_NUMBER_INVALID or REGION_UNKNOWN.
        """
        return self.peers.region(routed(prescription_number).region_code)
