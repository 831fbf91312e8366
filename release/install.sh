#!/bin/sh
# `make install` and `make uninstall`: a venv in APPDIR, and around it what systemd, man and the shells look for. DESTDIR is
# for packagers: a tree that becomes the root later.
#
# Whatever ends this at whatever point, either the old program or the new one is in place, and a repetition completes.
set -eu
umask 022
APPDIR=${APPDIR%/}
app=$DESTDIR$APPDIR
new=$app.new old=$app.old
share=$DESTDIR$PREFIX/share
# The folders that had to be made, so that `uninstall` leaves what was there before.
note="made-by-install"

fail() { echo "$*" >&2; exit 1; }
is_live() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

# What is installed besides APPDIR: source and place.
list_files() {
    for unit in ebs-autoscale.service ebs-autoscale@.service; do
        echo "systemd/$unit $DESTDIR$UNITDIR/$unit"
    done
    echo "systemd/ebs-autoscale.catalog $DESTDIR$CATALOGDIR/ebs-autoscale.catalog"
    echo "logrotate/ebs-autoscale $DESTDIR/etc/logrotate.d/ebs-autoscale"
    echo "docs/ebs-autoscale.yaml.5 $share/man/man5/ebs-autoscale.yaml.5"
    echo "docs/ebs-autoscale.8 $share/man/man8/ebs-autoscale.8"
    echo "completion/bash/ebs-autoscale $share/bash-completion/completions/ebs-autoscale"
    echo "completion/zsh/_ebs-autoscale $share/zsh/site-functions/_ebs-autoscale"
    echo "completion/fish/ebs-autoscale.fish $share/fish/vendor_completions.d/ebs-autoscale.fish"
}
link=$DESTDIR$PREFIX/bin/ebs-autoscale
list_places() { list_files | cut -d' ' -f2; echo "$link"; }

require_ours() {
    [ -z "$DESTDIR" ] && [ "$(id -u)" != 0 ] && fail "run as root, for example: sudo make $1"
    # Older versions left no note; no package and no release has a pyvenv.cfg.
    [ ! -e "$app" ] || [ -e "$app/$note" ] || [ -e "$app/pyvenv.cfg" ] || [ -z "$(ls -A "$app")" ] ||
        fail "$app is not from \`make install\` but from a package or a release: remove that first, or set APPDIR"
}

# The folder and those above it that do not exist, the deepest first.
missing_above() {
    folder=$1
    until [ -e "$folder" ]; do
        echo "$folder"
        folder=$(dirname "$folder")
    done
}

# A venv in "$new", as if it were in APPDIR.
build() {
    rm -rf "$new"
    above=$(missing_above "$(dirname "$app")")
    trap clean_up EXIT
    "$PYTHON" -m venv "$new"
    {
        cat "$app/$note" 2>/dev/null || true
        echo "$above"
        missing_above "$app"
        list_places | while read -r place; do missing_above "$(dirname "$place")"; done
    } | sort -ru >"$new/$note"
    "$new/bin/python" -m pip -qq --disable-pip-version-check install --no-compile --require-hashes -r requirements.lock
    "$new/bin/python" -m pip -qq --disable-pip-version-check install --no-compile --no-deps .
    grep -rlIF "$new" "$new/bin" "$new/pyvenv.cfg" | xargs -r sed -i "s|$new|$APPDIR|g"
    "$new/bin/python" -m compileall -q -s "$new" -p "$APPDIR" "$new/lib"
}

clean_up() {
    rm -rf "$new"
    [ -e "$app" ] || echo "$above" | while read -r folder; do rmdir "$folder" 2>/dev/null || true; done
}

# Renames at once what no `mv` before coreutils 9.5 can; elsewhere, as on some overlay filesystems, one after the other.
put_in_place() {
    [ ! -d "$app" ] || rmdir "$app" 2>/dev/null || "$PYTHON" -c '
import ctypes, os, sys
AT_FDCWD, RENAME_EXCHANGE = -100, 2
new, app = map(os.fsencode, sys.argv[1:])
sys.exit(ctypes.CDLL(None).renameat2(AT_FDCWD, new, AT_FDCWD, app, RENAME_EXCHANGE) != 0)' "$new" "$app" || mv "$app" "$old"
    [ -d "$app" ] || mv "$new" "$app"
    rm -rf "$new" "$old"
}

# A file has all of its content, or that of before.
put_file() {
    mkdir -p "$(dirname "$2")"
    sed "s|/opt/ebs-autoscale/|$APPDIR/|" "$1" >"$2.new"
    chmod 644 "$2.new"
    mv -f "$2.new" "$2"
}

reload() {
    ! is_live || { systemctl daemon-reload; journalctl --update-catalog; }
}

tell_daemons() {
    ! is_live || ! systemctl -q is-active 'ebs-autoscale.service' 'ebs-autoscale@*.service' ||
        echo "running services restart by themselves within half a minute, or once no growth is running"
    [ -n "$DESTDIR" ] || ! pgrep -f 'ebs-autoscale.* run --detach' >/dev/null ||
        echo "daemons that were started with \`run --detach\` go on with the old version: restart them"
}

install() {
    require_ours install
    # Killed between the two renames of put_in_place.
    [ -e "$app" ] || [ ! -e "$old" ] || mv "$old" "$app"
    echo "installing into $app"
    build
    put_in_place
    list_files | while read -r source place; do put_file "$source" "$place"; done
    mkdir -p "$(dirname "$link")"
    ln -sfn "$APPDIR/bin/ebs-autoscale" "$link.new"
    mv -fT "$link.new" "$link"
    reload
    tell_daemons
    echo "next: ebs-autoscale init /scratch"
}

uninstall() {
    require_ours uninstall
    if is_live; then
        # Two patterns: for them it is no error that there is no such unit, as in a second run.
        systemctl stop 'ebs-autoscale.servic[e]' 'ebs-autoscale@*.service'
        for unit in ebs-autoscale.service ebs-autoscale@.service; do
            [ ! -f "$UNITDIR/$unit" ] || systemctl -q disable "$unit"
        done
    fi
    list_places | while read -r place; do rm -f "$place" "$place.new"; done
    rm -rf "$new" "$old"
    [ ! -d "$app" ] || find "$app" -mindepth 1 -maxdepth 1 ! -name "$note" -exec rm -rf {} +
    made=$(cat "$app/$note" 2>/dev/null || true)
    rm -rf "$app"
    echo "$made" | while read -r folder; do rmdir "$folder" 2>/dev/null || true; done
    reload
}

"$1"
