# What the programs have written there, or a release that was unpacked there before.
rm -rf /opt/ebs-autoscale
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    journalctl --update-catalog || true
fi
