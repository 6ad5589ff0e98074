#!/bin/sh
# Build the wheel, install it in a clean environment and use it from another folder.
# The environment sees the heavy dependencies of the one that is given, so that torch is not installed twice.
set -eu
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
here=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m pip wheel -q --no-deps -w "$work" "$here"
"$python" -m venv "$work/clean"
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
clean=$("$work/clean/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# A .pth file would also run the editable install of the sources: link the dependencies one by one instead.
for entry in "$site"/*; do
    case $(basename "$entry") in
        *lamina*|*.pth|pip|pip-*|__pycache__) ;;
        *) [ -e "$clean/$(basename "$entry")" ] || ln -s "$entry" "$clean/" ;;
    esac
done
"$work/clean/bin/pip" install -q --no-deps "$work"/lamina-*.whl
cd "$work"
"$work/clean/bin/lamina" --version
"$work/clean/bin/lamina" pretrain 'sample:photos?crop=32&most=4' --out run --recipe demo --max-steps 2 --batch-size 8 --workers 0
test -s run/report.html
test -f "$clean/lamina/py.typed"
"$work/clean/bin/lamina" report run --out other.html
echo "the wheel works"
