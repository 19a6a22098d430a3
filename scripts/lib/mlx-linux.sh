# shellcheck shell=bash
# Sourced by setup, which sets these:
# shellcheck disable=SC2154 # root, python, cuda
# MLX for Linux: libmlx from its wheel, libmlxc.so built from the sources inside the mlx-sys crate, bindings.rs, and
# the Cargo configuration that puts them in place of mlx-sys's build script, which only knows Apple's libraries.
#
#   $mlx/cpu/site/   the wheel: mlx/lib/libmlx.so and, where its RPATH looks, its own BLAS
#   $mlx/cuda/site/  the same for CUDA (--cuda); a back end is chosen at run time, through LD_LIBRARY_PATH
#   $mlx/lib/        libmlxc.so
#   $mlx/bindings-*/   bindings.rs; the name changes with what it is made from
#
# Each folder has a stamp that holds the hash of what went into it, written last: an interrupted step is repeated, a
# finished one is not. Results are moved into place whole, so that a build going on beside never sees half of one.

arch=$(uname -m)
mlx=$CARGO_TARGET_DIR/mlx
config=$root/.cargo/config.toml
config_mark="# Made by scripts/setup, which rewrites it."
# Part of the stamp of every step that reads the crate: its version and checksum.
mlx_sys=$(grep -A3 '^name = "mlx-sys"$' "$root/Cargo.lock") || die "Cargo.lock does not name mlx-sys"

# key FILE… (and, on stdin, any other input): one hash of all.
key() { { cat; sha256sum "$@"; } | sha256sum | cut -d' ' -f1; }
# A folder of $mlx, and the key that it should have been made from.
up_to_date() { [ "$(cat "$mlx/$1/stamp" 2>/dev/null)" = "$2" ]; }
done_with() { printf '%s\n' "$2" >"$mlx/$1/stamp"; }

setup_linux() {
  case $arch in x86_64 | aarch64) ;; *) die "MLX has no wheels for $arch; x86_64 and aarch64 work" ;; esac
  case $CARGO_TARGET_DIR in *[,:\'\$\"\\]*) die "the target folder's path has a character that linkers misread" ;; esac

  cd "$root" || die "cannot enter $root"
  local site_key lib_key bindings_key bindings
  site_key=$(key scripts/mlx/requirements-cpu.txt <<<"$arch")
  lib_key=$(key scripts/mlx/{CMakeLists.txt,half.cpp,mach_time.c,format.hpp} <<<"$site_key $mlx_sys")
  bindings_key=$(key scripts/mlx-bindings/{Cargo.toml,half_types.h,src/main.rs} <<<"$mlx_sys")

  bindings=bindings-${bindings_key:0:12}

  mkdir -p "$mlx/lib" "$mlx/$bindings"
  exec 9>"$mlx/.lock"
  flock -n 9 || { say "waiting for another set-up"; flock 9; }

  # Looked for each time, since a target folder can outlive the machine that it was made on (a cache).
  local packages=()
  runtime_packages
  if ! { up_to_date cpu "$site_key" && up_to_date lib "$lib_key" && up_to_date "$bindings" "$bindings_key"; }; then
    check_glibc
    build_packages
  fi
  need_packages "${packages[@]}"
  # Cargo lets it replace the flags below, without which programs do not find libmlxc.so.
  [ -z "${RUSTFLAGS:-}" ] || say "RUSTFLAGS is set: add the flags of $config to it, or unset it"

  # Before any cargo call: a change of its rustflags later would have everything built twice.
  write_config
  up_to_date cpu "$site_key" || { fetch_site cpu "10 MB"; done_with cpu "$site_key"; }
  up_to_date lib "$lib_key" || { build_mlxc; done_with lib "$lib_key"; }
  up_to_date "$bindings" "$bindings_key" || { write_bindings; done_with "$bindings" "$bindings_key"; }
  [ "$cuda" = no ] || setup_cuda
}

# The wheels are built for this one, which pip cannot check once it is told the platform.
check_glibc() {
  local have
  have=$(getconf GNU_LIBC_VERSION 2>/dev/null) || have="glibc 0"
  printf '%s\n' 2.35 "${have#glibc }" | sort -VC || die "MLX needs glibc 2.35 or newer (Debian 12, Ubuntu 22.04)"
}

setup_cuda() {
  local cuda_key
  cuda_key=$(key scripts/mlx/requirements-cuda.txt <<<"$arch")
  if ! up_to_date cuda "$cuda_key"; then
    packages=()
    build_packages
    need_packages "${packages[@]}"
    fetch_site cuda "2 GB, 2.5 GB unpacked"
    done_with cuda "$cuda_key"
  fi
  say "the same programs run on CUDA with: export LD_LIBRARY_PATH=$mlx/cuda/site/mlx/lib"
}

# What building and running any of our programs takes.
runtime_packages() {
  command -v c++ >/dev/null || packages+=(g++)
  # Asked of the linker, so that any BLAS folder counts that it searches.
  case $(c++ -print-file-name=libopenblas.so 2>/dev/null) in /*) ;; *) packages+=(libopenblas-dev) ;; esac
}

# What only the steps below take.
build_packages() {
  command -v cmake >/dev/null || packages+=(cmake)
  command -v make >/dev/null || packages+=(make)
  "$python" -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
  [ -n "${LIBCLANG_PATH:-}" ] || system_libraries | grep 'libclang[-.][0-9s]' >/dev/null ||
    compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null || packages+=(libclang1)
}

# fetch_site NAME SIZE: the wheels of requirements-NAME.txt, by pip as it is configured here, unpacked into one tree.
fetch_site() {
  local tag platforms=() wheel
  # Every tag that one of the wheels carries: pip compares them as text once --platform is given, which it is so that
  # any Python will do.
  for tag in 2_35 2_28 2_27 2_17; do platforms+=(--platform "manylinux_${tag}_$arch"); done
  platforms+=(--platform "manylinux2014_$arch")
  say "fetching MLX for $1 ($2)"
  rm -rf "$mlx/$1.part"
  mkdir -p "$mlx/$1.part/wheels" "$mlx/$1.part/site"
  logged "$mlx/fetch-$1.log" "$python" -m pip --disable-pip-version-check download --require-hashes --no-deps \
    --only-binary=:all: "${platforms[@]}" --dest "$mlx/$1.part/wheels" -r "$root/scripts/mlx/requirements-$1.txt"
  for wheel in "$mlx/$1.part/wheels"/*.whl; do
    "$python" -m zipfile -e "$wheel" "$mlx/$1.part/site"
    rm "$wheel"
  done
  rmdir "$mlx/$1.part/wheels"
  rm -rf "${mlx:?}/$1"
  mv "$mlx/$1.part" "$mlx/$1"
}

# mlx_c_source: where Cargo unpacked mlx-c, downloading the crates if need be.
mlx_c_source() {
  cargo metadata --locked --format-version 1 --filter-platform "$arch-unknown-linux-gnu" 2>"$mlx/metadata.log" |
    "$python" -c '
import json, os, sys
packages = json.load(sys.stdin)["packages"]
manifest = next(package["manifest_path"] for package in packages if package["name"] == "mlx-sys")
print(os.path.join(os.path.dirname(manifest), "src", "mlx-c"))' 2>/dev/null || {
    tail -n 5 "$mlx/metadata.log" >&2
    die "cannot find mlx-sys through cargo metadata"
  }
}

build_mlxc() {
  local source build=$mlx/mlxc.part wanted
  source=$(mlx_c_source)
  wanted=$(sed -n 's/.*GIT_TAG v\([0-9.]*\).*/\1/p' "$source/CMakeLists.txt")
  grep -q "^mlx-cpu==$wanted " scripts/mlx/requirements-cpu.txt ||
    die "mlx-c was written for MLX $wanted; pin that version in scripts/mlx/requirements-{cpu,cuda}.txt"
  say "building libmlxc (about 40 s on two cores)"
  rm -rf "$build"
  mkdir -p "$build"
  logged "$mlx/cmake.log" cmake -S "$root/scripts/mlx" -B "$build" -DCMAKE_BUILD_TYPE=Release \
    -DMLX_C_SOURCE="$source" -DCMAKE_PREFIX_PATH="$mlx/cpu/site/mlx" -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$build"
  logged "$mlx/build.log" cmake --build "$build" --target mlxc --parallel "$(nproc)"
  mv "$build/libmlxc.so" "$mlx/lib/libmlxc.so"
  rm -rf "$build"
}

write_bindings() {
  local source
  source=$(mlx_c_source)
  say "building and running the bindings generator (about 50 s on two cores)"
  # libclang alone lacks a compiler's own headers (stddef.h); gcc's serve.
  logged "$mlx/bindings.log" cargo run --locked -p mlx-bindings -- "$source" "$mlx/$bindings/bindings.part" \
    -isystem "$(c++ -print-file-name=include)"
  mv "$mlx/$bindings/bindings.part" "$mlx/$bindings/bindings.rs"
}

# Cargo's build-script override for crates with `links = "mlx"`, and where our programs look for libmlxc.so: beside
# themselves first, as in a package. Other bindings have another OUT_DIR, so Cargo builds mlx-sys anew; a second
# value in rustc-env must not tell it, since Cargo 1.95 hashes that table in random order and builds anew at random.
write_config() {
  if [ -e "$config" ] && [ "$(head -n 1 "$config")" != "$config_mark" ]; then
    die "$config is not one that set-up made; move its settings to Cargo's home folder first"
  fi
  local text flags argument
  flags=
  for argument in --enable-new-dtags "-rpath,\$ORIGIN/../lib" "-rpath,\$ORIGIN/lib" "-rpath,$mlx/lib"; do
    flags+="\"-C\", \"link-arg=-Wl,$argument\", "
  done
  text=$(
    cat <<TOML
$config_mark
[target.$arch-unknown-linux-gnu.mlx]
rustc-link-lib = ["dylib=mlxc"]
rustc-link-search = ["native=$mlx/lib"]
rustc-env = { OUT_DIR = "$mlx/$bindings" }

[target.$arch-unknown-linux-gnu]
rustflags = [$flags]
# Documentation tests are linked by rustdoc, which reads only these.
rustdocflags = [$flags]
TOML
  )
  [ "$(cat "$config" 2>/dev/null)" != "$text" ] || return 0
  mkdir -p "$root/.cargo"
  printf '%s\n' "$text" >"$config.part"
  mv "$config.part" "$config"
}
