# SPDX-License-Identifier: Apache-2.0
# The modules, bottom up. A module may depend only on modules above it in this file; tools/lint holds
# the list include by include.

enable_testing()
if(CMAKE_CROSSCOMPILING)
  add_library(PkgConfig::CMOCKA INTERFACE IMPORTED)
  target_include_directories(PkgConfig::CMOCKA INTERFACE ${PROJECT_SOURCE_DIR}/tests/cross)
  set(CMOCKA_FOUND TRUE)
else()
  pkg_check_modules(CMOCKA IMPORTED_TARGET cmocka)
endif()

# level 0
lockstep_module(base)
# level 1
lockstep_module(json WCONVERSION DEPS base PkgConfig::JANSSON)
lockstep_module(config DEPS base)
lockstep_module(metrics DEPS base)
lockstep_module(tensor WCONVERSION DEPS base)
# level 2
lockstep_module(ops DEPS tensor base)
lockstep_module(cpu DEPS ops tensor base)
lockstep_module(comm DEPS tensor base)
lockstep_module(weights WCONVERSION DEPS tensor json base)
lockstep_module(tokenizer WCONVERSION DEPS json base PkgConfig::PCRE2 PkgConfig::UTF8PROC)
lockstep_module(sample DEPS tensor base)
lockstep_module(rpc WCONVERSION DEPS json base PkgConfig::XXHASH)
lockstep_module(http WCONVERSION DEPS base)
lockstep_module(hub WCONVERSION DEPS json base PkgConfig::CURL PkgConfig::CRYPTO)
lockstep_module(sched DEPS base PkgConfig::XXHASH)
# level 3
lockstep_module(tune DEPS ops tensor json base PkgConfig::XXHASH)
lockstep_module(model DEPS ops comm weights tensor json base PkgConfig::XXHASH)
lockstep_module(chat DEPS json base)
# level 4
lockstep_module(engine DEPS model sample rpc tune ops comm weights tensor json base PkgConfig::XXHASH)
lockstep_module(world DEPS sched rpc comm json base PkgConfig::XXHASH)
lockstep_module(lib DEPS world comm tensor base)
target_include_directories(lib PUBLIC ${PROJECT_SOURCE_DIR}/include)
lockstep_module(gateway DEPS world sched rpc chat tokenizer sample metrics json base)
# level 5
lockstep_module(web DEPS base)
file(GLOB web_page CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/web/page/*)
add_custom_command(OUTPUT ${PROJECT_BINARY_DIR}/web_files.c
  COMMAND ${CMAKE_COMMAND} -DFOLDER=${PROJECT_SOURCE_DIR}/src/web/page
    -DOUTPUT=${PROJECT_BINARY_DIR}/web_files.c -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
  DEPENDS ${web_page} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake VERBATIM)
target_sources(web PRIVATE ${PROJECT_BINARY_DIR}/web_files.c)
lockstep_module(api DEPS web gateway chat tokenizer sample http metrics json base)

# level 6
file(GLOB cmd_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cmd/*.c)
if(cmd_sources)
  add_executable(lockstep ${cmd_sources})
  target_link_libraries(lockstep PRIVATE api web gateway hub http sched metrics world engine chat tokenizer sample model tune cpu comm weights config json
    PkgConfig::EDIT PkgConfig::HWLOC PkgConfig::XXHASH)
endif()

include(${PROJECT_SOURCE_DIR}/cmake/library.cmake)

if(CMOCKA_FOUND)
  lockstep_tests(base INPUT CROSS test_base)
  lockstep_tests(json INPUT)
  lockstep_tests(config INPUT)
  lockstep_tests(metrics THREADED test_threads)
  lockstep_tests(tensor CROSS test_dtype test_leaves test_quant)
  lockstep_kernel_stand_ins(cpu_emulated tests/cpu/emulated cpu)
  lockstep_tests(cpu DEPS cpu_emulated THREADED test_attention_op test_pool test_row_queue test_rows_op CROSS test_kernels_attention
    test_kernels_attention_int8 test_kernels_bf16_12 test_kernels_mass test_kernels_matmul
    test_kernels_quant test_kernels_rows test_kernels_zero test_kv_page test_level test_linear test_peak test_row_queue test_selfcheck)
  lockstep_tests(comm SLOW test_matrix THREADED test_matrix test_moves test_tree test_faults
    test_misuse test_short)
  lockstep_tests(weights INPUT)
  lockstep_tests(tokenizer INPUT)
  lockstep_tests(sample SLOW test_distribution)
  lockstep_tests(rpc INPUT THREADED test_ring test_trace_ring)
  lockstep_tests(http INPUT)
  lockstep_tests(hub INPUT)
  lockstep_tests(sched)
  lockstep_tests(gateway THREADED test_loops)
  lockstep_tests(web)
  lockstep_tests(api INPUT SLOW test_bodies)
  lockstep_tests(tune DEPS cpu)
  lockstep_tests(model DEPS cpu)
  lockstep_tests(chat INPUT)
  lockstep_tests(engine SLOW test_bits test_ranks test_draw test_respawn DEPS cpu THREADED test_draw test_draw_refused)
  lockstep_tests(world SLOW test_supervisor test_supervisor_faults test_supervisor_talk THREADED test_spawner test_control)
  lockstep_tests(lib THREADED test_world test_faults test_collectives test_misuse test_deadlines test_processes)
endif()
file(GLOB fuzz_lists CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/fuzz/*.cmake)
foreach(list ${fuzz_lists}) # one file a module: its lockstep_fuzz() lines
  include(${list})
endforeach()

find_program(PYTHON3 NAMES python3)
if(PYTHON3 AND NOT LOCKSTEP_SANITIZE AND CMAKE_C_COMPILER_ID STREQUAL "GNU") # once is enough
  add_test(NAME lint COMMAND ${PYTHON3} ${PROJECT_SOURCE_DIR}/tools/lint)
  add_test(NAME lint/rules COMMAND ${PYTHON3} ${PROJECT_SOURCE_DIR}/tools/test-lint)
  set_tests_properties(lint lint/rules PROPERTIES TIMEOUT 300)
endif()
