app=/opt/ebs-autoscale
if [ -e "$app/made-by-install" ] || [ -e "$app/pyvenv.cfg" ]; then
    echo "ebs-autoscale: $app is from \`make install\`: run \`make uninstall\` there, then install the package again" >&2
    exit 1
fi
# Bytecode of the version that is replaced is of no use to the next one.
[ ! -d "$app/lib" ] || find "$app/lib" -name __pycache__ -prune -exec rm -rf {} +
# An unpacked release is taken over. Its libraries may be in other versions, by which `check` would judge.
[ -e /usr/bin/ebs-autoscale ] || rm -rf "$app/lib/"*.dist-info
# What it had to put elsewhere would hide what the package brings, unless an operator
# has changed it.
for unit in ebs-autoscale.service ebs-autoscale@.service; do
    copy=/etc/systemd/system/$unit
    if [ -f "$copy" ] && [ "$(cat "$copy")" = "$(cat "$app/share/ebs-autoscale/systemd/$unit" 2>/dev/null)" ]; then
        rm "$copy"
    fi
done
link=/usr/local/bin/ebs-autoscale
[ "$(readlink "$link")" != "$app/bin/ebs-autoscale" ] || rm "$link"
