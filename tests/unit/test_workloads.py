"""Forecasts know what is possible: programs of many kinds get the volumes that they need."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebs_autoscale.model import GIB, MIB
from ebs_autoscale.policy.settings import GrowthPolicy, Sizing, Threshold
from tests.simulated.programs import CASES, starts
from tests.simulated.workloads import Act, Allocate, Hardware, Host, Rest, Write

NO_FLOORS = GrowthPolicy(
    threshold=Threshold(available_percent=0.0, available_min_bytes=0),
    sizing=Sizing(min_bytes=GIB),
)
STEADY = [name for name in CASES if name.startswith(("steady", "accelerating"))]


@pytest.mark.parametrize("name", CASES)
def test_no_volume_is_needless(name: str) -> None:
    """No program gets ENOSPC, and none brings about more volumes than it needs in hindsight."""
    case = CASES[name]
    host = case.run()
    assert host.enospc_at == []
    assert len(host.decided) <= case.needed() + case.unforeseen


@pytest.mark.parametrize("name", STEADY)
def test_a_steady_writer_is_helped_as_early_as_ever(name: str) -> None:
    """Where a rate lasts, growths start when they did before forecasts were bounded."""
    assert starts(CASES[name].run()) == list(CASES[name].before)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.unforeseen])
def test_a_first_burst_could_have_gone_on(name: str) -> None:
    """The one volume too many is created for the first burst, as for one that does not end."""
    case = CASES[name]
    first = case.acts[0]
    assert isinstance(first, Write)
    goes_on = replace(case, acts=[replace(first, count=case.size_gib * GIB)])
    assert starts(case.run())[:1] == starts(goes_on.run())[:1]


@pytest.mark.parametrize("piece_mib", [50, 500])
def test_what_is_not_written_is_not_bounded(piece_mib: int) -> None:
    """Space that fallocate takes faster than devices could is helped as early as without them."""
    acts = 100 * 1000 // piece_mib * [Allocate(piece_mib * MIB), Rest(piece_mib / 1000)]
    hosts = [
        Host(acts, NO_FLOORS, Hardware(is_told=told), size_bytes=60 * GIB) for told in (True, False)
    ]
    for host in hosts:
        host.run()
        assert host.enospc_at == []
    assert starts(hosts[0]) == starts(hosts[1])


@settings(max_examples=60, deadline=None)
@given(
    acts=st.lists(
        st.builds(
            lambda gib, mib: Write(gib * GIB, mib * MIB), st.floats(0.1, 8), st.floats(50, 2000)
        )
        | st.builds(Rest, st.floats(0.1, 10)),
        min_size=1,
        max_size=4,
    ),
    size=st.floats(1, 40),
    cache=st.floats(0, 10),
    throughput=st.floats(30, 1000),
    growth_seconds=st.floats(2, 15),
)
def test_the_bound_costs_no_write(
    acts: list[Act], size: float, cache: float, throughput: float, growth_seconds: float
) -> None:
    """Whoever writes through cache and devices gets no ENOSPC for the bound that they are."""
    hardware = Hardware(
        cache_bytes=int(cache * GIB),
        device_bytes_per_second=throughput * MIB,
        growth_seconds=growth_seconds,
    )
    unbounded, bounded = (
        Host(acts, NO_FLOORS, replace(hardware, is_told=told), size_bytes=int(size * GIB))
        for told in (False, True)
    )
    unbounded.run(rest_seconds=1)
    bounded.run(rest_seconds=1)
    assert unbounded.enospc_at or not bounded.enospc_at
