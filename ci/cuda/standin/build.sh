#!/bin/sh
# Builds the CPU stand-in into a folder, for LD_LIBRARY_PATH: libcuda.so.1 and libcublas.so.12
# (machine.h says what they do and how they are set).
#
#     ci/cuda/standin/build.sh FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kernels=$(cd "$here/../../../qera-gpu/src/kernels" && pwd)
mkdir -p "$1"
# No contraction: where the kernels want a fused operation they say so.
library() { # NAME [what it is made of]
    name=$1
    shift
    g++ -std=c++17 -O3 -march=native -ffp-contract=off -fPIC -shared -Wall -Wextra -Werror \
        -I "$here" -I "$kernels" "$@" -o "$folder/$name" -Wl,-soname,"$name"
}
folder=$1
library libcuda.so.1 "$here/machine.cpp" "$here/kernels.cpp"
library libcublas.so.12 "$here/blas.cpp" "$folder/libcuda.so.1"
