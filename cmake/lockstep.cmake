# SPDX-License-Identifier: Apache-2.0
# Flags and the functions with which modules, tests and fuzz targets are declared.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson>=2.13)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(HWLOC REQUIRED IMPORTED_TARGET hwloc)
pkg_check_modules(EDIT REQUIRED IMPORTED_TARGET libedit)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)

add_library(lockstep_flags INTERFACE)
target_compile_definitions(lockstep_flags INTERFACE _GNU_SOURCE
  LOCKSTEP_VERSION="${PROJECT_VERSION}")
target_include_directories(lockstep_flags INTERFACE ${PROJECT_SOURCE_DIR}/src)
# Contraction is off everywhere: a fused multiply-add is always written out (canonical arithmetic).
target_compile_options(lockstep_flags INTERFACE
  -ffp-contract=off -fno-strict-aliasing -fvisibility=hidden -fno-omit-frame-pointer
  -Wall -Wextra -Wshadow -Wvla -Wmissing-prototypes -Wformat=2 -Wno-missing-field-initializers
  $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation>
  $<$<BOOL:${LOCKSTEP_WERROR}>:-Werror>)
target_link_libraries(lockstep_flags INTERFACE Threads::Threads m)
if(LOCKSTEP_SANITIZE OR CMAKE_BUILD_TYPE STREQUAL "Debug")
  # Ranks compare what they have computed after every step.
  target_compile_definitions(lockstep_flags INTERFACE LOCKSTEP_CHECKED)
endif()
if(LOCKSTEP_SANITIZE)
  # Function names and lines are what a report needs; a debugger wants more, and has the build debug.
  target_compile_options(lockstep_flags INTERFACE -fsanitize=${LOCKSTEP_SANITIZE}
    -fno-sanitize-recover=all -O1 -g1)
  target_link_options(lockstep_flags INTERFACE -fsanitize=${LOCKSTEP_SANITIZE})
endif()

# lockstep_isa_flags(SOURCE): the compiler's flags for a file of kernels, by the suffix of its name.
function(lockstep_isa_flags source)
  set(isa "")
  if(source MATCHES "_avx512\\.c$")
    set(isa -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c -mbmi2)
  elseif(source MATCHES "_avx512vnni\\.c$")
    set(isa -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma -mf16c -mbmi2)
  elseif(source MATCHES "_avx512bf16\\.c$")
    set(isa -mavx512bf16 -mavx512vbmi -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma -mf16c -mbmi2)
  elseif(source MATCHES "_amx\\.c$")
    set(isa -mamx-tile -mamx-bf16 -mamx-int8 -mavx512vnni -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c -mbmi2)
  elseif(source MATCHES "_avxvnni\\.c$")
    set(isa -mavxvnni -mavx2 -mfma -mf16c -mbmi2)
  elseif(source MATCHES "_avx2\\.c$")
    set(isa -mavx2 -mfma -mf16c -mbmi2)
  elseif(source MATCHES "_neondot\\.c$")
    set(isa -march=armv8.2-a+dotprod)
  elseif(source MATCHES "_neon\\.c$")
    set(isa -march=armv8-a)
  endif()
  if(isa AND LOCKSTEP_SANITIZE)
    # Kernels are one large inlined function each: with every check written out and every variable
    # described a file takes minutes to compile. So address checks are calls (they find the same).
    list(APPEND isa -O1 -g1)
    if(LOCKSTEP_SANITIZE MATCHES "address" AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
      list(APPEND isa --param=asan-instrumentation-with-call-threshold=0)
    elseif(LOCKSTEP_SANITIZE MATCHES "address")
      list(APPEND isa -mllvm -asan-instrumentation-with-call-threshold=0)
    endif()
    if(LOCKSTEP_SANITIZE MATCHES "undefined")
      list(APPEND isa -fno-sanitize=pointer-overflow,alignment,null,object-size)
    endif()
  endif()
  set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${isa}")
endfunction()

# lockstep_module(NAME [WCONVERSION] [DEPS module-or-target ...])
# A static library of every src/NAME/**/*.c. Include directions are checked by tools/lint.
function(lockstep_module name)
  cmake_parse_arguments(M "WCONVERSION" "" "DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.c)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(FILTER sources EXCLUDE REGEX "_(neon|neondot)\\.c$")
  else()
    list(FILTER sources EXCLUDE REGEX "_(avx2|avxvnni|avx512|avx512vnni|avx512bf16|amx)\\.c$")
  endif()
  if(NOT sources)
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE lockstep_flags ${M_DEPS})
    return()
  endif()
  foreach(source ${sources}) # per-file ISA flags follow the file's suffix
    lockstep_isa_flags(${source})
  endforeach()
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC lockstep_flags ${M_DEPS})
  if(M_WCONVERSION)
    target_compile_options(${name} PRIVATE -Wconversion -Wno-sign-conversion)
  endif()
endfunction()

# lockstep_kernel_stand_ins(NAME FOLDER DEPS...): kernels over plain C for the tests, compiled like the
# ones for AVX2 (fmaf is one instruction then). Empty where there is no such instruction set. They take
# long to build and to run: gcc's build without sanitizers has them, the others with ./check --full alone.
function(lockstep_kernel_stand_ins name folder)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*_avx2.c)
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" OR (NOT DEFINED ENV{LOCKSTEP_FULL} AND
      (LOCKSTEP_SANITIZE OR NOT CMAKE_C_COMPILER_ID STREQUAL "GNU")))
    add_library(${name} INTERFACE)
    return()
  endif()
  foreach(source ${sources})
    lockstep_isa_flags(${source})
  endforeach()
  add_library(${name} STATIC ${sources})
  target_compile_definitions(${name} INTERFACE KERNEL_STAND_INS)
  target_link_libraries(${name} PUBLIC lockstep_flags ${ARGN})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR}/tests)
  target_compile_options(${name} PRIVATE $<$<NOT:$<CONFIG:Debug>>:-O1>)
endfunction()

# lockstep_tests(MODULE [INPUT] [THREADED test ...] [CROSS test ...] [SLOW test ...] [DEPS ...]): every
# tests/MODULE/test_*.c is one cmocka program and one ctest. The ones named in SLOW start first. The ones
# named in THREADED carry the label threads: ./check runs them under the thread sanitizer too (target
# threaded_tests). A module that reads what comes from outside is marked INPUT: ./check runs its tests,
# and every fuzz corpus, under the sanitizers of both compilers (label input, target input_tests). The ones
# named in CROSS, which need no other library, run on an emulated arm64 too (label cross, target
# cross_tests; cmake/aarch64.cmake), with a sample of what takes long.
add_custom_target(threaded_tests)
add_custom_target(input_tests)
add_custom_target(cross_tests)
function(lockstep_tests name)
  cmake_parse_arguments(T "INPUT" "" "DEPS;THREADED;CROSS;SLOW" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/${name}/test_*.c)
  foreach(source ${sources})
    get_filename_component(base ${source} NAME_WE)
    set(target ${name}_${base})
    add_executable(${target} ${source})
    target_link_libraries(${target} PRIVATE ${name} ${T_DEPS} PkgConfig::CMOCKA)
    target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
    # What is tested is optimised; what tests it runs once, and inlining it doubles a build's time.
    target_compile_options(${target} PRIVATE $<$<NOT:$<CONFIG:Debug>>:-O1>)
    target_compile_definitions(${target} PRIVATE
      TEST_SOURCE_DIR="${PROJECT_SOURCE_DIR}" TEST_BINARY_DIR="${PROJECT_BINARY_DIR}")
    add_test(NAME ${name}/${base} COMMAND ${target})
    set_tests_properties(${name}/${base} PROPERTIES TIMEOUT 300)
    if(base IN_LIST T_SLOW)
      set_tests_properties(${name}/${base} PROPERTIES COST 100)
    endif()
    if(base IN_LIST T_THREADED)
      set_property(TEST ${name}/${base} APPEND PROPERTY LABELS threads)
      add_dependencies(threaded_tests ${target})
    endif()
    if(T_INPUT)
      set_property(TEST ${name}/${base} APPEND PROPERTY LABELS input)
      add_dependencies(input_tests ${target})
    endif()
    if(base IN_LIST T_CROSS)
      if(CMAKE_CROSSCOMPILING)
        set_property(TEST ${name}/${base} APPEND PROPERTY ENVIRONMENT LOCKSTEP_SAMPLE=17)
      endif()
      set_property(TEST ${name}/${base} APPEND PROPERTY LABELS cross)
      add_dependencies(cross_tests ${target})
    endif()
  endforeach()
endfunction()

# lockstep_fuzz(NAME SOURCE CORPUS [DEPS ...])
# SOURCE defines LLVMFuzzerTestOneInput. In the ordinary build a replay driver runs it over CORPUS as
# a ctest; with LOCKSTEP_FUZZ it is also built as a libFuzzer program.
function(lockstep_fuzz name source corpus)
  cmake_parse_arguments(F "" "" "DEPS" ${ARGN})
  add_executable(replay_${name} ${PROJECT_SOURCE_DIR}/${source}
    ${PROJECT_SOURCE_DIR}/tests/fuzz/replay.c)
  target_link_libraries(replay_${name} PRIVATE ${F_DEPS})
  add_test(NAME fuzz/${name} COMMAND replay_${name} ${PROJECT_SOURCE_DIR}/${corpus})
  set_tests_properties(fuzz/${name} PROPERTIES TIMEOUT 120 LABELS input)
  add_dependencies(input_tests replay_${name})
  if(LOCKSTEP_FUZZ)
    add_executable(fuzz_${name} ${PROJECT_SOURCE_DIR}/${source})
    target_link_libraries(fuzz_${name} PRIVATE ${F_DEPS})
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  endif()
endfunction()
