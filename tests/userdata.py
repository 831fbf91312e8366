"""The shipped user data, and the script in them."""

from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import yaml

USERDATA = (Path(__file__).parents[1] / "cloud-init/userdata.yaml").read_text("utf-8")


def with_settings(text: str, **settings: str) -> str:
    """The user data, or the script in them, with these settings."""
    for name, value in settings.items():
        lines = text.splitlines(keepends=True)
        [place] = [i for i, line in enumerate(lines) if line.lstrip().startswith(f"{name}=")]
        before = lines[place].partition("=")[0]
        lines[place] = f"{before}='{value}'\n"
        text = "".join(lines)
    return text


def script() -> str:
    """What cloud-init writes to /usr/local/sbin/ebs-autoscale-install."""
    [command] = yaml.safe_load(USERDATA)["bootcmd"]
    _, _, rest = command[-1].partition("<<'SCRIPT'\n")
    return str(rest.partition("SCRIPT\n")[0])


def settings() -> dict[str, str]:
    """The settings, as they are shipped."""
    lines = script().partition("EDIT HERE")[2].partition("# ----")[0].splitlines()[1:]
    pairs = (line.split("=", 1) for line in lines if not line.startswith("#"))
    return {name: value.strip('"') for name, value in pairs}


def multipart(*parts: str) -> str:
    """User data of several parts, as EC2's services want them."""
    whole = MIMEMultipart()
    for part in parts:
        kind = "cloud-config" if part.startswith("#cloud-config") else "x-shellscript"
        whole.attach(MIMEText(part, kind, "utf-8"))
    return whole.as_string()
