"""Figures about a store that several processes share, for metrics and readiness."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SharingFigures:
    """The part of one process. `writes_chain`: it writes the chain of commits. `listener_age_s`: the seconds since it
    last heard, or looked, what others have committed. `hears`: its connection that hears of it is open now.
    """

    writes_chain: bool
    listener_age_s: float
    hears: bool


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """The queue of all processes, and who is alive.

    Jobs are `waiting` for a worker, `running` at one, or `later`: their tasks wait for the end of an outage.
    `oldest_s`: the seconds for which the oldest waiting job has waited; 0 if none waits. `workers` run tasks;
    `replicas` are all processes that have the store open.
    """

    waiting: int
    running: int
    later: int
    oldest_s: float
    workers: int
    replicas: int
