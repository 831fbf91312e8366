"""XFS and ext4, which grow with the one volume that they have."""

from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebs_autoscale.errors import Cause
from ebs_autoscale.model import (
    GIB,
    BalanceMetadata,
    Device,
    Enlarge,
    EnlargeVolume,
    FilesystemKind,
    Finish,
    Grow,
    Inodes,
    Modification,
    Observation,
    Reading,
    Refuse,
    ResizeDevice,
    Volume,
)
from ebs_autoscale.policy import (
    DAY_SECONDS,
    FillHistory,
    Forecast,
    GrowthMethod,
    GrowthPolicy,
    Limits,
    Sizing,
    Threshold,
    decide,
    managed,
    missing_reserve,
    poll_delay_seconds,
    problems_of,
    remarks_of,
    seconds_until_full,
    shortage_of,
    steps_for,
    unused_volumes,
    waiting,
    wanted_reserve_bytes,
)
from ebs_autoscale.policy.shortage import INODES_PER_SECOND, Resource
from ebs_autoscale.policy.sizing import next_size
from tests.unit.samples import (
    GP3,
    MIB,
    inventory_of,
    observation_of,
    reading_of,
    volume_of,
)

XFS, EXT4 = FilesystemKind.XFS, FilesystemKind.EXT4
QUIET = Forecast()
# mkfs.ext4 makes one for each 16 KiB.
BYTES_PER_INODE = 16384

kinds = st.sampled_from([XFS, EXT4])


def one_device(
    size_gib: float, available_gib: float, kind: FilesystemKind = XFS, **changes: Any
) -> Reading:
    """A filesystem on the one block device that it can have, `nvme0n1`."""
    values: dict[str, Any] = {"metadata_headroom_bytes": None, "metadata_profile": "", **changes}
    return reading_of(size_gib, available_gib, kind=kind, **values)


def its_volume(gib: int, **changes: Any) -> Volume:
    """The volume below, which `init` has created or tagged."""
    values = {"size_bytes": gib * GIB, "largest_bytes": 16384 * GIB, "usd_per_gib": 0.08}
    return volume_of(0, **{**values, **changes})


def seen_with(reading: Reading, *volumes: Volume, **inventory: Any) -> Observation:
    """Both, EC2 having been asked for modifications."""
    return observation_of(reading, inventory_of(*volumes, shows_modifications=True, **inventory))


def with_inodes(gib: float, share: float) -> Inodes:
    """Those of an ext4 of this size, so many of them available."""
    total = int(gib * GIB) // BYTES_PER_INODE
    return Inodes(total=total, available=int(total * share))


@pytest.mark.parametrize("kind", [XFS, EXT4])
@pytest.mark.parametrize("method", [GrowthMethod.AUTO, GrowthMethod.ENLARGE])
@pytest.mark.parametrize(
    "foreign", ["", "restored from snap-1", "copied from vol-9"], ids=["new", "restored", "copied"]
)
def test_its_volume_is_enlarged(kind: FilesystemKind, method: GrowthMethod, foreign: str) -> None:
    """Free slots and limits.volumes make no difference, nor does a snapshot that it came from."""
    for slots_free, limit in ((20, None), (0, 1), (None, 0)):
        seen = seen_with(
            one_device(100, 10, kind), its_volume(100, foreign=foreign), slots_free=slots_free
        )
        policy = GrowthPolicy(sizing=Sizing(method=method), limits=Limits(volumes=limit))
        decision = decide(seen, policy, forecast=QUIET)
        assert isinstance(decision, Enlarge)
        assert (decision.volume.id, decision.target_bytes // GIB) == ("vol-0000", 150)
        # A role that may not enlarge is an error: there is no other way to grow.
        assert not decision.instead_of_new
        assert [type(step) for step in steps_for(decision, kind)] == [EnlargeVolume, ResizeDevice]


@pytest.mark.parametrize("kind", [XFS, EXT4])
def test_method_add_is_refused(kind: FilesystemKind) -> None:
    """It says what to set; space that is there already is used all the same."""
    policy = GrowthPolicy(sizing=Sizing(method=GrowthMethod.ADD))
    for wanted_bytes in (None, 0, 50 * GIB):
        seen = seen_with(one_device(100, 10, kind), its_volume(100))
        decision = decide(seen, policy, forecast=QUIET, wanted_bytes=wanted_bytes)
        assert isinstance(decision, Refuse)
        assert decision.limit is Cause.METHOD
        assert kind in decision.reason
        assert "growth.method to auto" in decision.hint
    larger = observation_of(one_device(100, 10, kind), inventory_of(its_volume(100)))
    device = replace(larger.reading.devices[0], size_bytes=60 * GIB, capacity_bytes=100 * GIB)
    larger = replace(larger, reading=replace(larger.reading, devices=(device,)))
    decision = decide(larger, policy, forecast=QUIET)
    assert isinstance(decision, Finish)
    assert [type(step) for step in steps_for(decision, kind)] == [ResizeDevice]
    assert [type(step) for step in steps_for(decision)] == [ResizeDevice, BalanceMetadata]


def test_a_volume_without_our_tags_is_left_alone() -> None:
    """EC2 lists none with this filesystem: the refusal says how to make it ours."""
    decision = decide(seen_with(one_device(100, 10)), GrowthPolicy(), forecast=QUIET)
    assert isinstance(decision, Refuse)
    assert decision.limit is Cause.METHOD
    assert "nvme0n1" in decision.reason
    assert "`ebs-autoscale init /scratch`" in decision.hint


@pytest.mark.parametrize(
    ("changes", "limits", "cause"),
    [
        ({"size_bytes": 1024 * GIB}, {}, Cause.LIMIT_SIZE),
        ({"largest_bytes": 100 * GIB}, {}, Cause.LIMIT_SIZE),
        ({"largest_bytes": 0}, {}, Cause.METHOD),
        ({}, {"total_bytes": 100 * GIB}, Cause.LIMIT_TOTAL),
        ({}, {"monthly_usd": 8.01}, Cause.LIMIT_MONTHLY),
        ({"age_seconds": 10.0}, {"cooldown_seconds": 60}, Cause.LIMIT_COOLDOWN),
        (
            {"modification": Modification(state="optimizing", target_bytes=100 * GIB)},
            {},
            Cause.MODIFICATIONS,
        ),
    ],
)
@pytest.mark.parametrize("wanted_bytes", [None, 50 * GIB])
def test_each_limit_refuses_under_its_own_key(
    changes: dict[str, Any], limits: dict[str, Any], cause: Cause, wanted_bytes: int | None
) -> None:
    """It is named, with the shortage first and what to do last."""
    seen = seen_with(one_device(100, 10), its_volume(100, **changes))
    policy = GrowthPolicy(limits=Limits(**limits))
    decision = decide(seen, policy, forecast=QUIET, wanted_bytes=wanted_bytes)
    assert isinstance(decision, Refuse), decision
    assert decision.limit is cause
    assert decision.hint
    if wanted_bytes is None:
        assert decision.reason.startswith("10.0 % (10 GiB) available")
    if cause is Cause.MODIFICATIONS:
        assert "tries again after 5 min" in decision.hint
        assert "not completed" in decision.reason


@pytest.mark.parametrize("state", ["busy", "detaching"])
def test_its_volume_is_being_detached(state: str) -> None:
    """It is told as that: the data on it are in use, and nobody is advised to delete them."""
    volume = its_volume(100, attachment_state=state)
    seen = replace(seen_with(one_device(100, 10), volume), nodes={})
    assert unused_volumes(seen) is None
    decision = decide(seen, GrowthPolicy(), forecast=QUIET)
    assert isinstance(decision, Refuse)
    assert (decision.limit, f"{volume.id} is {state}" in decision.reason) == (Cause.STATE, True)


def test_no_other_volume_is_ever_attached() -> None:
    """A detached volume with the tags of this filesystem is reported, never taken."""
    loose = volume_of(1, state="available", attached_to="", device_name="", attachment_state="")
    seen = seen_with(one_device(100, 90), its_volume(100), loose)
    assert waiting(seen) is None
    problem = unused_volumes(seen)
    assert problem
    assert loose.id in problem.sentence
    assert managed(seen).volumes == 1


modifications = st.none() | st.builds(
    Modification,
    state=st.sampled_from(["modifying", "optimizing", "completed", "failed"]),
    target_bytes=st.integers(1, 3000).map(lambda gib: gib * GIB),
    age_seconds=st.none() | st.floats(-10, 2 * DAY_SECONDS),
)
volumes = st.lists(
    st.builds(
        volume_of,
        st.integers(0, 3),
        size_bytes=st.integers(1, 2000).map(lambda gib: gib * GIB),
        largest_bytes=st.integers(0, 3000).map(lambda gib: gib * GIB),
        usd_per_gib=st.just(GP3.usd_per_gib),
        foreign=st.sampled_from(["", "restored from snap-1"]),
        state=st.sampled_from(["in-use", "available", "error", "creating"]),
        attached_to=st.sampled_from([volume_of(0).attached_to, ""]),
        modification=modifications,
    ),
    max_size=4,
    unique_by=lambda volume: volume.growth.ordinal,
)
inode_counts = st.none() | st.builds(
    lambda total, share: Inodes(total=total, available=int(total * share)),
    st.integers(1, 10**9),
    st.floats(0, 1),
)
policies = st.builds(
    GrowthPolicy,
    threshold=st.builds(Threshold, available_percent=st.floats(0, 100)),
    sizing=st.builds(
        Sizing,
        method=st.sampled_from(GrowthMethod),
        fixed_bytes=st.none() | st.integers(1, 2000 * GIB),
        min_bytes=st.integers(1, 500 * GIB),
        max_bytes=st.integers(500 * GIB, 9000 * GIB),
    ),
    limits=st.builds(
        Limits,
        volumes=st.none() | st.integers(0, 3),
        total_bytes=st.integers(0, 9000 * GIB),
        monthly_usd=st.none() | st.floats(0.01, 500),
    ),
)
rates = st.floats(0, 4 * GIB)


@given(
    reading=st.builds(
        one_device, st.integers(1, 3000), st.floats(0, 3000), kinds, inodes=inode_counts
    ),
    found=volumes,
    slots_free=st.none() | st.integers(0, 5),
    policy=policies,
    forecast=st.builds(Forecast, fill_bytes_per_second=rates, sustained_bytes_per_second=rates),
    wanted=st.none() | st.integers(0, 3000).map(lambda gib: gib * GIB),
)
def test_laws_of_every_decision(
    reading: Reading,
    found: list[Volume],
    slots_free: int | None,
    policy: GrowthPolicy,
    forecast: Forecast,
    wanted: int | None,
) -> None:
    """Whatever the world looks like: no new volume, nothing shrinks, no limit is exceeded."""
    seen = seen_with(reading, *found, slots_free=slots_free)
    decision = decide(seen, policy, forecast=forecast, wanted_bytes=wanted)
    assert not isinstance(decision, Grow)
    assert decision == decide(seen, policy, forecast=forecast, wanted_bytes=wanted)
    if isinstance(decision, Finish):
        device = seen.reading.devices[0]
        assert decision.growth.target_bytes > device.size_bytes  # type: ignore[union-attr]
    if not isinstance(decision, Enlarge):
        return
    assert policy.sizing.method is not GrowthMethod.ADD
    volume, target = decision.volume, decision.target_bytes
    assert seen.is_device(volume)
    assert target >= volume.size_bytes + GIB
    assert target <= min(policy.sizing.max_bytes, volume.largest_bytes)
    after = managed(seen.with_volumes(volume.enlarged(target)))
    assert after.size_bytes <= policy.limits.total_bytes
    if policy.limits.monthly_usd is not None:
        assert after.cost.usd_per_month <= policy.limits.monthly_usd + 1e-6
    if wanted:
        assert decision.size_bytes == wanted


def modifications_of(
    rate: float, size_gib: int, *, hours: float, completes_seconds: float, **sizing: Any
) -> tuple[list[float], list[int], float | None]:
    """When a steady writer's volume is enlarged, to which sizes, and when it gets ENOSPC if so.

    EC2 takes `completes_seconds` for each modification, and no more than four a day.
    """
    policy = GrowthPolicy(
        sizing=Sizing(**sizing), limits=Limits(total_bytes=64 * 1024 * GIB), threshold=Threshold()
    )
    forecast = Forecast(fill_bytes_per_second=rate, sustained_bytes_per_second=rate)
    size, used, now = float(size_gib * GIB), 0.0, 0.0
    done: list[float] = []
    sizes: list[int] = []
    while now < hours * 3600:
        recent = [at for at in done if now - at < DAY_SECONDS]
        is_possible = len(recent) < 4 and (not done or now - done[-1] >= completes_seconds)
        reading = replace(
            one_device(size / GIB, (size - used) / GIB), used_bytes=int(used), taken_at_seconds=now
        )
        change = (
            Modification(state="completed", target_bytes=int(size), age_seconds=now - done[-1])
            if done
            else None
        )
        volume = its_volume(int(size / GIB), largest_bytes=65536 * GIB, modification=change)
        decision = decide(seen_with(reading, volume), policy, forecast=forecast)
        if isinstance(decision, Enlarge) and is_possible:
            size = float(decision.target_bytes)
            done.append(now)
            sizes.append(decision.target_bytes // GIB)
        step = max(1.0, min((size - used) / rate / 30, 900.0))
        now, used = now + step, used + rate * step
        if used >= size:
            return done, sizes, now
    return done, sizes, None


@pytest.mark.parametrize(
    ("mib_per_second", "size_gib", "min_gib", "hours"),
    [
        (1, 1, 1, 48),  # tiny
        (1, 1, 20, 48),
        (20, 8, 1, 30),
        (125, 100, 20, 30),
        (1024, 1, 1, 14),
        (1024, 100, 20, 14),
    ],
)
def test_four_modifications_a_day_last(
    mib_per_second: int, size_gib: int, min_gib: int, hours: float
) -> None:
    """A steady writer never gets ENOSPC, up to the largest volume that EC2 has."""
    done, sizes, full_at = modifications_of(
        mib_per_second * MIB,
        size_gib,
        hours=hours,
        completes_seconds=600.0,
        min_bytes=min_gib * GIB,
        max_bytes=65536 * GIB,
    )
    assert full_at is None, (done, sizes)
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("gib", "share", "percent", "growth_seconds", "is_short"),
    [
        (100, 0.201, 20, 20, False),
        (100, 0.199, 20, 20, True),
        (100, 0.199, 10, 20, False),
        # A burst of new files, of which a small filesystem has a twentieth at most.
        (100, 0.051, 1, 20, False),
        (100, 0.049, 1, 20, True),
        (16384, 0.0038, 0.1, 20, False),
        (16384, 0.0037, 0.1, 20, True),
        (16384, 0.0038, 0.1, 60, True),
        (100, 0.0, 0, 20, True),
    ],
)
def test_scarce_inodes_call_for_growth(
    gib: int, share: float, percent: float, growth_seconds: float, *, is_short: bool
) -> None:
    """The share of the threshold must be left of them, and what new files take meanwhile."""
    reading = one_device(gib, gib * 0.9, EXT4, inodes=with_inodes(gib, share))
    policy = GrowthPolicy(threshold=Threshold(available_percent=percent))
    shortage = shortage_of(reading, policy, Forecast(growth_seconds=growth_seconds))
    assert (shortage.of is Resource.INODES if shortage else False) == is_short
    if shortage:
        assert "inodes" in shortage.sentence
    assert shortage_of(replace(reading, inodes=None), policy, QUIET) is None
    if share < percent / 100:
        assert shortage_of(reading, policy, Forecast(growth_seconds=inf))


@given(
    gib=st.integers(1, 16000),
    share=st.floats(0, 1),
    percent=st.floats(0, 90),
    growth_seconds=st.floats(0, 300),
    fixed=st.none() | st.integers(1, 100 * GIB),
    per_inode=st.sampled_from([1024, 4096, 16384, 65536]),
)
def test_a_growth_brings_enough_inodes(
    gib: int, share: float, percent: float, growth_seconds: float, fixed: int | None, per_inode: int
) -> None:
    """Inodes grow as the filesystem does: one growth without limits ends their shortage."""
    total = gib * GIB // per_inode
    inodes = Inodes(total=total, available=int(total * share))
    reading = one_device(gib, gib * 0.95, EXT4, inodes=inodes)
    policy = GrowthPolicy(
        threshold=Threshold(available_percent=percent, lead_time_seconds=growth_seconds),
        sizing=Sizing(fixed_bytes=fixed, min_bytes=GIB, max_bytes=2**60),
        limits=Limits(total_bytes=2**60),
    )
    volume = its_volume(gib, largest_bytes=2**60)
    decision = decide(seen_with(reading, volume), policy, forecast=QUIET)
    if not isinstance(decision, Enlarge):
        assert shortage_of(reading, policy, QUIET) is None
        return
    added = decision.size_bytes
    more = total * added // (gib * GIB)
    after = replace(
        reading,
        size_bytes=reading.size_bytes + added,
        available_bytes=reading.available_bytes + added,
        inodes=Inodes(total=total + more, available=inodes.available + more),
    )
    assert shortage_of(after, policy, QUIET) is None


@pytest.mark.parametrize("percent", [5, 20, 60])
@pytest.mark.parametrize("min_gib", [0, 12])
@pytest.mark.parametrize("available_gib", [0, 5])
def test_a_growth_of_ext4_ends_the_shortage(percent: int, min_gib: int, available_gib: int) -> None:
    """Of each GiB more, its tables and what it reserves for root are not available."""
    larger, reserved = 0.98, 0.05
    size = 100 * larger
    reading = replace(
        one_device(size, available_gib, EXT4),
        used_bytes=int((size * (1 - reserved) - available_gib) * GIB),
        devices=(replace(one_device(100, 0, EXT4).devices[0], size_bytes=100 * GIB),),
    )
    policy = GrowthPolicy(
        threshold=Threshold(available_percent=percent, available_min_bytes=min_gib * GIB),
        sizing=Sizing(fixed_bytes=GIB, min_bytes=GIB, max_bytes=2**60),
    )
    if shortage_of(reading, policy, QUIET) is None:
        return
    added = next_size(reading, policy, QUIET).size_bytes * larger
    after = replace(
        reading,
        size_bytes=reading.size_bytes + int(added),
        available_bytes=reading.available_bytes + int(added * (1 - reserved)),
    )
    assert shortage_of(after, policy, QUIET) is None


def test_files_that_are_being_created_call_for_growth() -> None:
    """At the rate of the latest looks inodes would not last until a growth has ended."""
    history = FillHistory()
    for tick in range(40):
        reading = replace(
            one_device(20, 19, EXT4, inodes=with_inodes(20, 1.0)), taken_at_seconds=tick / 4
        )
        assert reading.inodes
        left = reading.inodes.total - 5000 * tick
        reading = replace(reading, inodes=replace(reading.inodes, available=left))
        history.add(reading, 40.0)
    forecast = history.forecast
    assert forecast.inodes_per_second == pytest.approx(20_000, rel=0.01)
    assert forecast.fill_bytes_per_second == 0
    assert left > 0.8 * with_inodes(20, 1.0).total
    assert shortage_of(reading, GrowthPolicy(), forecast) is None
    slow = replace(forecast, growth_seconds=30.0)
    shortage = shortage_of(reading, GrowthPolicy(), slow)
    assert shortage
    assert shortage.of is Resource.INODES
    assert "used up in 56 s at 20000 new files a second" in shortage.sentence
    assert seconds_until_full(reading, slow) == pytest.approx(left / 20_000, rel=0.01)
    decision = decide(seen_with(reading, its_volume(20)), GrowthPolicy(), forecast=slow)
    assert isinstance(decision, Enlarge)
    assert decision.size_bytes == 20 * GIB
    assert "new files a second" in decision.reason


def test_a_limit_that_brings_no_inodes_says_inodes() -> None:
    """Whatever forbids the growth, its reason is what is short."""
    reading = one_device(100, 90, EXT4, inodes=with_inodes(100, 0.01))
    policy = GrowthPolicy(limits=Limits(total_bytes=100 * GIB))
    decision = decide(seen_with(reading, its_volume(100)), policy, forecast=QUIET)
    assert isinstance(decision, Refuse)
    assert decision.reason.startswith("65536 of 6553600 inodes (1.0 %) available")
    assert decision.limit is Cause.LIMIT_TOTAL


@given(gib=st.integers(1, 16000), share=st.floats(0, 1), percent=st.floats(0, 100))
def test_no_burst_of_files_is_missed_between_two_looks(
    gib: int, share: float, percent: float
) -> None:
    """Above poll.min, the delay ends before inodes could become short."""
    reading = one_device(gib, gib, EXT4, inodes=with_inodes(gib, share))
    policy = GrowthPolicy(threshold=Threshold(available_percent=percent))
    delay = poll_delay_seconds(reading, policy, QUIET)
    assert reading.inodes
    left = reading.inodes.available - int(INODES_PER_SECOND * delay)
    after = replace(reading, inodes=replace(reading.inodes, available=max(0, left)))
    is_short = shortage_of(reading, policy, QUIET)
    assert delay == policy.polling.min_seconds or is_short or not shortage_of(after, policy, QUIET)


@pytest.mark.parametrize(
    ("available", "seconds", "is_full"),
    [(0, 0.0, True), (1, 0.0, False), (6553, 0.0, False), (6554, inf, False)],
)
def test_the_end_of_inodes(available: int, seconds: float, *, is_full: bool) -> None:
    """The last thousandth counts as the end; without any, new files fail."""
    inodes = Inodes(total=6_553_600, available=available)
    reading = one_device(100, 90, EXT4, inodes=inodes)
    assert seconds_until_full(reading, QUIET) == seconds
    problems = list(problems_of(reading))
    assert [problem.cause for problem in problems] == [Cause.FULL] * is_full
    if is_full:
        assert "inodes" in problems[0].sentence
        assert "ENOSPC" in problems[0].sentence


@pytest.mark.parametrize("kind", [XFS, EXT4])
@pytest.mark.parametrize("configured", [None, 256 * MIB])
def test_there_is_no_reserve(kind: FilesystemKind, configured: int | None) -> None:
    """None is wanted, so none is missing, and nothing is judged by the room for metadata."""
    reading = one_device(100, 90, kind)
    assert wanted_reserve_bytes(configured, reading) == 0
    assert missing_reserve(configured, reading, GrowthPolicy(), QUIET) is None
    assert list(problems_of(reading)) == []
    assert decide(seen_with(reading), GrowthPolicy(), forecast=QUIET).kind == "hold"


@pytest.mark.parametrize(
    ("kind", "partition", "command"),
    [
        (XFS, "", "`xfs_growfs /scratch`"),
        (XFS, "nvme0n1p1", "`growpart /dev/nvme0n1 1` and `xfs_growfs /scratch`"),
        (EXT4, "", "`resize2fs /dev/nvme0n1`"),
        (
            EXT4,
            "nvme0n1p15",
            "`growpart /dev/nvme0n1 15` and `resize2fs /dev/nvme0n1p15`",
        ),
        (FilesystemKind.BTRFS, "", "`btrfs filesystem resize 1:max /scratch`"),
    ],
)
def test_space_that_an_enlarged_volume_has(
    kind: FilesystemKind, partition: str, command: str
) -> None:
    """It says who uses it, and how an operator does on a volume that is not ours."""
    device = Device(
        devid=1,
        name="nvme0n1",
        size_bytes=GIB,
        unallocated_bytes=0,
        capacity_bytes=3 * GIB,
        partition=partition,
    )
    reading = replace(one_device(1, 0.5, kind), devices=(device,))
    (remark,) = remarks_of(reading, volumes={"nvme0n1": "vol-1"}, encrypted=())
    assert "2 GiB of vol-1" in remark.sentence
    assert "`ebs-autoscale grow`" in remark.hint
    assert remark.hint.endswith(command)
