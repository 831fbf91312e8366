app=/opt/ebs-autoscale
# Without bytecode, each start takes several times as long. A failure is no reason to refuse the package.
"$app/bin/python" -I -S -m compileall -q "$app/lib" || true
# A running daemon notices by itself that it was replaced, and restarts once no growth is running.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    journalctl --update-catalog || true
    # After a removal the configuration is still there, and nothing watches the filesystem.
    config=/etc/ebs-autoscale/config.yaml
    if [ -e "$config" ] && [ "$(systemctl is-enabled ebs-autoscale.service)" = disabled ]; then
        echo "ebs-autoscale: no daemon runs for $config: run \`systemctl enable --now ebs-autoscale\`"
    fi
fi
