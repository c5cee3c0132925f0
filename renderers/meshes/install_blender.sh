#!/bin/sh
# Sets up .blender/ (or the folder given): Blender's module in an environment of its own, apart from ours,
# because its wheels are for Python 3.11 only and need numpy < 2. About 1 GB on disk.
set -eu
folder=${1:-.blender}
bpy=4.5.15

if [ ! -x "$folder/bin/python" ]; then
    if python=$(command -v "${PYTHON311:-python3.11}") && "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv "$folder"
    elif command -v uv >/dev/null && uv venv --seed --python 3.11 "$folder"; then
        :
    else
        echo "make blender: Blender's module needs Python 3.11 with venv, which is not here." >&2
        echo "Install it (Debian 12: apt-get install python3.11-venv), name it in PYTHON311, or set" >&2
        echo "MENAGERIE_BLENDER to an installed Blender 4.4 or newer instead." >&2
        exit 1
    fi
fi
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check "bpy==$bpy" "numpy<2"
if ! "$folder/bin/python" -c 'import bpy' >/dev/null 2>"$folder/import.log"; then
    cat "$folder/import.log" >&2
    echo "make blender: bpy is installed but does not start. On Debian it needs the packages" >&2
    echo "libx11-6 libxrender1 libxfixes3 libxi6 libxkbcommon0 libsm6 libice6 libgl1" >&2
    exit 1
fi
echo "Blender $bpy is ready in $folder"
