"""The configuration that `init` writes is the shipped one, and never another mountpoint's."""

from pathlib import Path

import pytest

from ebs_autoscale import config
from ebs_autoscale.config.schema import Settings
from ebs_autoscale.errors import ConfigInvalid
from ebs_autoscale.host import paths
from ebs_autoscale.provision import config_file


@pytest.mark.parametrize("mountpoint", ["/scratch", "/a b", '/q"', "/c: #d", "/groß", "/b\\n"])
def test_only_the_mountpoint_differs(mountpoint: str) -> None:
    """The file has the defaults for this mountpoint, and every comment of the shipped one."""
    text = config_file.text_for(mountpoint)
    assert config.parse(text, name="written") == Settings(mountpoint=mountpoint)
    shipped = Path(config.__file__).with_name("config.yaml").read_text("utf-8")
    changed = set(text.splitlines()) ^ set(shipped.splitlines())
    assert len(changed) == (0 if mountpoint == "/scratch" else 2)


def test_each_mountpoint_has_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second mountpoint has a file named after it; the first keeps the default file."""
    default = tmp_path / "config.yaml"
    monkeypatch.setattr(paths, "CONFIG_DEFAULT", default)
    assert config.settings_for(default, "/scratch") == (
        default,
        Settings(mountpoint="/scratch"),
    )
    default.write_text("mountpoint: /scratch\nadopt: true\n", "utf-8")
    assert config.settings_for(default, "/scratch")[1].adopt
    path, settings = config.settings_for(default, "/srv/my-own")
    assert (path.name, settings.adopt) == (r"srv-my\x2down.yaml", False)


def test_a_file_given_is_used_as_given(tmp_path: Path) -> None:
    """With --config no other file is used; one for another mountpoint is refused."""
    given = tmp_path / "mine.yaml"
    assert config.settings_for(given, "/scratch")[0] == given
    given.write_text("mountpoint: /other\n", "utf-8")
    with pytest.raises(ConfigInvalid, match="is for /other, not for /scratch"):
        config.settings_for(given, "/scratch")
