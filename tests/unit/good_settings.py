"""The settings that the good samples mean, spelled out."""

from dataclasses import replace
from pathlib import Path

from ebs_autoscale.config.schema import MetricsSettings, Settings
from ebs_autoscale.model import GIB, MIB, Rebalance, VolumeSpec
from ebs_autoscale.policy.settings import (
    GrowthPolicy,
    LadderStep,
    Limits,
    Polling,
    Sizing,
    Threshold,
)

DEFAULT = Settings(
    mountpoint="/scratch",
    policy=GrowthPolicy(
        threshold=Threshold(
            available_percent=20.0, available_min_bytes=None, lead_time_seconds=None
        ),
        sizing=Sizing(
            percent=50.0, fixed_bytes=None, min_bytes=20 * GIB, max_bytes=1024 * GIB, steps=()
        ),
        limits=Limits(
            volumes=None, total_bytes=16 * 1024 * GIB, cooldown_seconds=0.0, monthly_usd=None
        ),
        polling=Polling(min_seconds=0.1, max_seconds=5.0),
    ),
    volume=VolumeSpec(
        type="gp3",
        iops=None,
        throughput_mib_per_second=None,
        encrypted=True,
        kms_key_id=None,
        delete_on_termination=True,
        tags={},
        copy_instance_tags=False,
        price_factor=1.0,
    ),
    rebalance=Rebalance.BOUNDED,
    reserve_bytes=None,
    log_format="auto",
)

GOOD = {
    "minimal": DEFAULT,
    "empty-sections": replace(DEFAULT, mountpoint="/var/lib/docker"),
    "odd-mountpoint": replace(DEFAULT, mountpoint="/data/two\nlines and spaces"),
    "anchors": replace(
        DEFAULT,
        policy=GrowthPolicy(sizing=Sizing(min_bytes=50 * GIB, max_bytes=50 * GIB)),
        volume=VolumeSpec(tags={"where": "/scratch"}),
    ),
    "money": replace(
        DEFAULT,
        policy=GrowthPolicy(limits=Limits(monthly_usd=199.5)),
        volume=VolumeSpec(price_factor=0.9),
    ),
    "throughput": replace(
        DEFAULT,
        policy=GrowthPolicy(
            threshold=Threshold(lead_time_seconds=0.0),
            sizing=Sizing(percent=200.0, sold_min_bytes=20 * GIB, sold_bytes_per_second=500 * MIB),
        ),
        volume=VolumeSpec(iops=10_000, throughput_mib_per_second=500),
    ),
    "unwritten-bounds": replace(
        DEFAULT,
        policy=GrowthPolicy(
            sizing=Sizing(fixed_bytes=2048 * GIB, min_bytes=5 * GIB, max_bytes=2048 * GIB),
            limits=Limits(total_bytes=5 * GIB),
        ),
    ),
    "ladder": replace(
        DEFAULT,
        policy=GrowthPolicy(
            sizing=Sizing(
                max_bytes=1500 * GIB,
                steps=(
                    LadderStep(devices=1, available_percent=50.0, size_bytes=150 * GIB),
                    LadderStep(devices=4, available_percent=20.0, size_bytes=1500 * GIB),
                ),
            )
        ),
    ),
    "everything": Settings(
        mountpoint="/mnt/genomics",
        policy=GrowthPolicy(
            threshold=Threshold(
                available_percent=12.5, available_min_bytes=GIB * 3 // 2, lead_time_seconds=90.0
            ),
            sizing=Sizing(
                fixed_bytes=100 * GIB,
                min_bytes=64 * GIB,
                max_bytes=2048 * GIB,
                # The smallest volume with 20,000 IOPS, and the most that it takes.
                sold_min_bytes=20 * GIB,
                sold_bytes_per_second=4000 * MIB,
            ),
            limits=Limits(volumes=12, total_bytes=20 * 1024 * GIB, cooldown_seconds=300.0),
            polling=Polling(min_seconds=0.05, max_seconds=30.0),
        ),
        volume=VolumeSpec(
            type="io2",
            iops=20_000,
            encrypted=True,
            kms_key_id="arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            delete_on_termination=False,
            tags={"team": "genomics", "cost:center": "4711", "empty": ""},
            copy_instance_tags=True,
        ),
        rebalance=Rebalance.OFF,
        reserve_bytes=0,
        log_format="json",
        metrics=MetricsSettings(
            textfile=Path("/var/lib/node_exporter/ebs-autoscale.prom"), listen=("::1", 9798)
        ),
        notify_command=("/usr/local/bin/tell-ops", "--channel", "on call"),
    ),
    "commands": replace(
        DEFAULT,
        metrics=MetricsSettings(listen=("127.0.0.1", 9798)),
        notify_command=("sh", "-c", "mail -s scratch root"),
    ),
}
