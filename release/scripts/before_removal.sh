if [ -d /run/systemd/system ]; then
    # The daemon stops a growth at a safe point first; the next start finishes it.
    systemctl stop ebs-autoscale.service 'ebs-autoscale@*.service'
    systemctl -q disable ebs-autoscale.service ebs-autoscale@.service
fi
[ ! -d /opt/ebs-autoscale/lib ] || find /opt/ebs-autoscale/lib -name __pycache__ -prune -exec rm -rf {} +
