# shellcheck shell=bash
# Sourced by llama-server, which sets these:
# shellcheck disable=SC2154 # root, build, dir
# A private llama-server. Each folder has a stamp, written last, with the hash of the recipe that made it; it is made
# beside and moved into place whole, under a lock, so neither an interrupted run nor two at once leave half of one.

# The oldest llama-server that the bridge takes (runtime-gguf-bridge/src/server/version.rs): a version, or the number of a
# build that has no other.
oldest_llama_version=0.5.0
oldest_llama_build=9000

# new_enough_llama_server: the one in PATH, if it is new enough. Says why not, if there is one.
new_enough_llama_server() {
  local found said version oldest=$oldest_llama_version
  found=$(command -v llama-server) || return 1
  said=$("$found" --version 2>&1) || { say "$found does not run"; return 1; }
  version=$(sed -nE 's/^version: ([0-9.]+).*/\1/p' <<<"$said" | head -n 1)
  case $version in *.*) ;; *) oldest=$oldest_llama_build ;; esac
  printf '%s\n' $oldest "${version:-0}" | sort -VC || {
    say "$found is too old (${version:-no version}; $oldest_llama_version or build $oldest_llama_build is needed)"
    return 1
  }
  printf '%s\n' "$found"
}

private_llama_server() {
  local how=debian want recipe=("$root/scripts/lib/llama-server.sh")
  [ -n "$(debian_archive)" ] || how=sources
  [ "$build" = no ] || how=sources
  [ -n "$dir" ] || dir=$(cache_folder)/llama-server/$how-$(uname -m)
  case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
  [ $how = debian ] || recipe+=("$root/scripts/gguf/sources/sdist.txt")
  want=$({ printf '%s\n' "$dir"; cat "${recipe[@]}"; } | sha256sum)
  if ! stamped; then
    [ ! -e "$dir" ] || [ -e "$dir/stamp" ] || rmdir "$dir" 2>/dev/null || die "$dir holds something else"
    mkdir -p "$(dirname "$dir")"
    exec 9>"$dir.lock"
    flock -n 9 || { say "waiting for another one who fetches it"; flock 9; }
    if ! stamped; then
      rm -rf "$dir.part"
      mkdir -p "$dir.part"
      "from_$how"
      printf '%s\n' "$want" >"$dir.part/stamp"
      rm -rf "$dir"
      mv "$dir.part" "$dir"
      "$dir/llama-server" --version >&2 || { rm -f "$dir/stamp"; die "it does not run here"; }
    fi
  fi
  printf '%s\n' "$dir/llama-server"
}

stamped() { [ -x "$dir/llama-server" ] && [ "$(cat "$dir/stamp" 2>/dev/null)" = "$want" ]; }

# The Debian archive that apt uses here, whichever it is; nothing where there is none.
debian_archive() {
  grep -rhoE --include='*.list' --include='*.sources' 'https?://[^ ]+/debian/?( |$)' \
    /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -n 1 | tr -d ' ' || true
}

# Debian sid's binaries. Its libc is newer than that of older releases, so its own loader and libraries go along, named
# in the binaries by patchelf. (Not by calling the loader: then /proc/self/exe is the loader, and ggml looks for its
# CPU back ends beside that.) patchelf comes the same way, so nothing needs to be installed.
from_debian() {
  local work apt tool lib loader binary keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  for tool in apt-get dpkg-deb; do
    command -v $tool >/dev/null || die "$tool is missing; --build makes llama-server from its sources"
  done
  [ -f $keyring ] || die "$keyring is missing (package debian-archive-keyring); --build makes llama-server from its sources"
  work=$dir.part/work
  mkdir -p "$work"/{lists/partial,archives/partial,root}
  : >"$work/status"
  printf 'deb [signed-by=%s] %s sid main\n' $keyring "$(debian_archive)" >"$work/sources"
  apt=(
    apt-get -qq -o Dir::Etc::sourcelist="$work/sources" -o Dir::Etc::sourceparts=- -o Dir::State="$work"
    -o Dir::State::status="$work/status" -o Dir::State::lists="$work/lists" -o Dir::Cache="$work"
    -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 -o Acquire::Languages=none -o Acquire::Retries=3
    -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o APT::Get::List-Cleanup=false
  )
  say "fetching Debian's llama-server into $dir"
  logged "$dir.log" "${apt[@]}" update
  logged "$dir.log" "${apt[@]}" install -y --download-only --no-install-recommends llama.cpp-tools patchelf
  for tool in "$work"/archives/*.deb; do dpkg-deb -x "$tool" "$work/root"; done

  # One architecture's folder, whichever it is here, and the loader that lies in it.
  lib=$(cd "$work"/root/usr/lib/*-linux-gnu && pwd)
  loader=$(cd "$lib" && ls ld-linux*.so.*)
  cp "$work/root/usr/bin/llama-server" "$dir.part"
  cp -a "$lib"/*.so* "$lib"/llama/*.so* "$lib"/ggml/backends0/*.so "$dir.part"
  local patchelf=("$lib/$loader" --library-path "$lib" "$work/root/usr/bin/patchelf")
  "${patchelf[@]}" --set-interpreter "$dir/$loader" --set-rpath "\$ORIGIN" --force-rpath "$dir.part/llama-server"
  for binary in "$dir.part"/lib*.so*; do
    case ${binary##*/} in libc.so*) continue ;; esac
    [ -L "$binary" ] || "${patchelf[@]}" --set-rpath "\$ORIGIN" --force-rpath "$binary"
  done
  rm -rf "$work"
}

# llama.cpp's sources lie in the pinned source package that its server's tests come from too.
from_sources() {
  local tool sources jobs=${JOBS:-$(nproc)}
  for tool in c++ cmake make; do command -v $tool >/dev/null || die "$tool is missing, which a build needs"; done
  sources=$("$root/scripts/gguf/sources/fetch")
  say "building llama-server (about ten minutes of CPU) into $dir"
  logged "$dir.log" cmake -S "$sources" -B "$dir.part/work" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF \
    -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DGGML_NATIVE=ON
  logged "$dir.log" cmake --build "$dir.part/work" --parallel "$jobs" --target llama-server
  cp "$dir.part/work/bin/llama-server" "$dir.part"
  rm -rf "$dir.part/work"
}
