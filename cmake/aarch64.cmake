# SPDX-License-Identifier: Apache-2.0
# Toolchain file: Debian's cross compiler for arm64, and qemu for the tests. The modules with tests
# labelled cross link against nothing but the C library. The headers of other libraries, the same on
# every processor, are this machine's own, searched after all others, so that every module compiles;
# what needs those libraries cannot be linked.

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_C_FLAGS_INIT "-idirafter /usr/include")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max)
