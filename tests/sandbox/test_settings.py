"""Settings of a sandbox."""

import pytest
from ec2_sandbox.errors import InputInvalid
from ec2_sandbox.settings import SandboxSettings


@pytest.mark.parametrize(
    "settings",
    [
        SandboxSettings.instant(),
        SandboxSettings.realistic(seed=7, block_devices="xen", hidden_device_names=("/dev/sdf",)),
        SandboxSettings(request_buckets={"ModifyVolume": [50, 5]}),
    ],
)
def test_settings_survive_json(settings: SandboxSettings) -> None:
    """Settings can be written as JSON and read back unchanged."""
    assert SandboxSettings.from_json(settings.to_json()) == settings


def test_a_preset_is_a_beginning() -> None:
    """Keys in addition to a preset override it."""
    settings = SandboxSettings.from_json('{"preset": "realistic", "create_seconds": [7, 8]}')
    assert settings.create_seconds == (7, 8)
    assert settings.attach_seconds == SandboxSettings.realistic().attach_seconds


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "not a JSON object"),
        ("{", "not JSON"),
        ('{"preset": "realistik"}', "did you mean 'realistic'"),
        ('{"create_second": [1, 2]}', "did you mean 'create_seconds'"),
        ('{"create_seconds": [2, 1]}', "minimum above its maximum"),
        ('{"create_seconds": 2}', "not a pair"),
        ('{"create_seconds": [-1, 1]}', "negative"),
        ('{"block_devices": "floppy"}', "none, nitro, xen"),
        ('{"flicker_probability": 2}', "between 0 and 1"),
        ('{"speed": -1}', "negative"),
        ('{"request_buckets": {"ModifyVolume": [50]}}', "not a pair of capacity and refill"),
    ],
)
def test_mistakes_are_named(text: str, complaint: str) -> None:
    """An invalid setting is refused with a hint."""
    with pytest.raises(InputInvalid, match=complaint):
        SandboxSettings.from_json(text)


@pytest.mark.parametrize(
    ("changes", "slots"),
    [
        ({}, 27),
        ({"network_interfaces": 3}, 25),
        ({"network_interfaces": 3, "attachment_limit_type": "dedicated"}, 27),
        ({"attachment_limit": None}, None),
    ],
)
def test_network_interfaces_may_take_slots(changes: dict[str, int], slots: int | None) -> None:
    """Slots are the limit of the type, less further network interfaces if they share it."""
    assert SandboxSettings.from_json(SandboxSettings(**changes).to_json()).slots == slots  # type: ignore[arg-type] # a table
