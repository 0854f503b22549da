#!/bin/sh
# Says in one line why the set-up cannot work here, and what to do about it.
python=$1

fail() {
    echo "hemagrid: $1" >&2
    exit 1
}

command -v "$python" >/dev/null ||
    fail "no $python found; install Python 3.11 to 3.13 (apt install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old; install Python 3.11 to 3.13 and run: make PYTHON=python3.11"
"$python" -c 'import sys; sys.exit(sys.version_info >= (3, 14))' ||
    fail "$("$python" --version) is too new, TensorFlow has no wheel for it; install Python 3.13 and run: make PYTHON=python3.13"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv module; install it: apt install python3-venv"
free_mib=$(df -Pm . | awk 'NR == 2 {print $4}')
[ "$free_mib" -ge "${HEMAGRID_NEEDS_MIB:-8000}" ] ||
    fail "only $free_mib MiB free on this disk, ${HEMAGRID_NEEDS_MIB:-8000} MiB are needed; free some or clone elsewhere"
