#!/bin/sh
# Builds a PKCS #11 token in software that signs with ML-DSA-44: kryoptic, with OpenSSL 3.5 inside. No distribution
# of today brings one. It takes some ten minutes, cargo, a C compiler, perl, and pip for libclang:
#
#   make mldsa-token        builds it into .mldsa-token, where tests/core/keystore/test_mldsa_token.py finds it
set -eu

folder=$(mkdir -p "$1" && cd "$1" && pwd)
python=${2:-python3}
cd "$folder"

mkdir -p fetch/src
printf 'fn main() {}\n' > fetch/src/main.rs
cat > fetch/Cargo.toml <<'TOML'
[package]
name = "fetch"
version = "0.1.0"
edition = "2021"
[dependencies]
kryoptic = { version = "=1.5.4", features = ["pqc"] }
openssl-src = "=300.5.5"
TOML
rm -rf vendor openssl-build kryoptic
(cd fetch && cargo vendor --quiet --versioned-dirs ../vendor > /dev/null)

cp -r vendor/openssl-src-300.5.5*/openssl openssl-build
(
    cd openssl-build
    perl ./Configure linux-"$(uname -m)" --prefix="$folder/openssl" --libdir=lib \
        no-shared no-tests no-docs no-legacy no-apps no-quic no-dtls -fPIC > configure.log 2>&1
    make -s -j2 build_libs > build.log 2>&1
    make -s install_dev > install.log 2>&1
)

"$python" -m pip install --quiet --disable-pip-version-check --upgrade --target libclang libclang
cp -r vendor/kryoptic-1.5.4 kryoptic
cd kryoptic
LIBCLANG_PATH="$folder/libclang/clang/native" \
BINDGEN_EXTRA_CLANG_ARGS="-I$(gcc -print-file-name=include)" \
PKG_CONFIG_PATH="$folder/openssl/lib/pkgconfig" PKG_CONFIG_ALL_STATIC=1 \
    cargo build --quiet --release --features pqc --target-dir "$folder/target"
cp "$folder/target/release/libkryoptic_pkcs11.so" "$folder/"
echo "built $folder/libkryoptic_pkcs11.so"
