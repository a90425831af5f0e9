# SPDX-License-Identifier: Apache-2.0
# liblockstep: the module lib and what it needs of those below, as a shared library that exports what
# the version script lists and as a static one in which everything else is local. Both are made of the
# very objects that the program is made of.

set(LOCKSTEP_LIBRARY_MODULES lib world comm tensor base)

# A library that computes sums for anybody must not pull in a language model's parts, nor a server's.
set(LOCKSTEP_LIBRARY_NEVER model tokenizer http chat engine gateway api web hub weights sample config cmd)
function(lockstep_link_closure target result)
  set(open ${target})
  set(seen "")
  while(open)
    list(POP_FRONT open one)
    if(NOT TARGET ${one} OR one IN_LIST seen)
      continue()
    endif()
    list(APPEND seen ${one})
    get_target_property(links ${one} LINK_LIBRARIES)
    get_target_property(interface ${one} INTERFACE_LINK_LIBRARIES)
    foreach(link ${links} ${interface})
      string(REGEX REPLACE "^\\$<LINK_ONLY:(.*)>$" "\\1" link "${link}")
      list(APPEND open ${link})
    endforeach()
  endwhile()
  set(${result} ${seen} PARENT_SCOPE)
endfunction()
lockstep_link_closure(lib lockstep_closure)
foreach(never ${LOCKSTEP_LIBRARY_NEVER})
  if(never IN_LIST lockstep_closure)
    message(FATAL_ERROR "liblockstep links the module ${never}")
  endif()
endforeach()

foreach(module ${lockstep_closure})
  get_target_property(type ${module} TYPE)
  get_target_property(imported ${module} IMPORTED)
  if(type STREQUAL "STATIC_LIBRARY" AND NOT imported)
    set_target_properties(${module} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  endif()
endforeach()

set(LOCKSTEP_VERSION_SCRIPT ${PROJECT_SOURCE_DIR}/src/lib/lockstep.map)
file(WRITE ${PROJECT_BINARY_DIR}/lockstep_library.c "/* liblockstep is made of the modules' objects. */\n")
add_library(lockstep_shared SHARED ${PROJECT_BINARY_DIR}/lockstep_library.c)
target_link_libraries(lockstep_shared PRIVATE
  -Wl,--whole-archive lib -Wl,--no-whole-archive world comm tensor base Threads::Threads m)
target_link_options(lockstep_shared PRIVATE -Wl,--as-needed -Wl,--version-script=${LOCKSTEP_VERSION_SCRIPT})
if(NOT LOCKSTEP_SANITIZE)
  target_link_options(lockstep_shared PRIVATE -Wl,-z,defs)
endif()
target_include_directories(lockstep_shared INTERFACE ${PROJECT_SOURCE_DIR}/include)
set_target_properties(lockstep_shared PROPERTIES
  OUTPUT_NAME lockstep VERSION ${PROJECT_VERSION} SOVERSION 0 LINK_DEPENDS ${LOCKSTEP_VERSION_SCRIPT})

# One object of all that lib needs, with hidden symbols made local, so that a program that links it
# may have a function of the same name.
if(NOT LOCKSTEP_SANITIZE)
  set(lockstep_archives "")
  foreach(module ${LOCKSTEP_LIBRARY_MODULES})
    if(NOT module STREQUAL "lib")
      list(APPEND lockstep_archives $<TARGET_FILE:${module}>)
    endif()
  endforeach()
  add_custom_command(OUTPUT ${PROJECT_BINARY_DIR}/liblockstep.a
    COMMAND ${CMAKE_LINKER} -r -o lockstep_static.o --whole-archive $<TARGET_FILE:lib>
      --no-whole-archive --start-group ${lockstep_archives} --end-group
    COMMAND ${CMAKE_OBJCOPY} --localize-hidden lockstep_static.o
    COMMAND ${CMAKE_COMMAND} -E rm -f liblockstep.a
    COMMAND ${CMAKE_AR} crs liblockstep.a lockstep_static.o
    DEPENDS ${LOCKSTEP_LIBRARY_MODULES} WORKING_DIRECTORY ${PROJECT_BINARY_DIR} VERBATIM)
  add_custom_target(lockstep_static ALL DEPENDS ${PROJECT_BINARY_DIR}/liblockstep.a)
endif()

# cmake --install BUILD --component library
include(GNUInstallDirs)
# pkg-config finds the prefix from where the file lies, so that --prefix and a move work.
file(RELATIVE_PATH LOCKSTEP_PC_UP /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" LOCKSTEP_PC_UP "${LOCKSTEP_PC_UP}")
configure_file(${PROJECT_SOURCE_DIR}/dist/lockstep.pc.in ${PROJECT_BINARY_DIR}/lockstep.pc @ONLY)
install(TARGETS lockstep_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  COMPONENT library NAMELINK_COMPONENT library)
install(FILES ${PROJECT_SOURCE_DIR}/include/lockstep.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  COMPONENT library)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/lockstep DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  COMPONENT library FILES_MATCHING PATTERN "*.h")
install(FILES ${PROJECT_BINARY_DIR}/lockstep.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
  COMPONENT library)
if(NOT LOCKSTEP_SANITIZE)
  install(FILES ${PROJECT_BINARY_DIR}/liblockstep.a DESTINATION ${CMAKE_INSTALL_LIBDIR}
    COMPONENT library)
endif()

# The examples are programs like anybody's: they link the shared library and are run as tests. Those in
# C++ are built where there is a C++ compiler, by default the sibling of the C compiler.
if(NOT CMAKE_CXX_COMPILER AND CMAKE_C_COMPILER_ID STREQUAL "Clang")
  find_program(CMAKE_CXX_COMPILER NAMES clang++)
elseif(NOT CMAKE_CXX_COMPILER AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
  find_program(CMAKE_CXX_COMPILER NAMES g++)
endif()
include(CheckLanguage)
check_language(CXX)
if(CMAKE_CXX_COMPILER)
  enable_language(CXX)
endif()
file(GLOB lockstep_examples CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/*.c
  ${PROJECT_SOURCE_DIR}/examples/*.cpp)
foreach(source ${lockstep_examples})
  if(source MATCHES "\\.cpp$" AND NOT CMAKE_CXX_COMPILER)
    message(STATUS "no C++ compiler: ${source} is left out")
    continue()
  endif()
  get_filename_component(name ${source} NAME_WE)
  add_executable(example_${name} ${source})
  target_link_libraries(example_${name} PRIVATE lockstep_shared)
  set_target_properties(example_${name} PROPERTIES
    CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF)
  target_compile_options(example_${name} PRIVATE -Wall -Wextra -Wpedantic
    $<$<BOOL:${LOCKSTEP_WERROR}>:-Werror>)
  if(LOCKSTEP_SANITIZE)
    target_compile_options(example_${name} PRIVATE -fsanitize=${LOCKSTEP_SANITIZE} -g)
    target_link_options(example_${name} PRIVATE -fsanitize=${LOCKSTEP_SANITIZE})
  endif()
  add_test(NAME lib/example/${name} COMMAND example_${name})
  set_tests_properties(lib/example/${name} PROPERTIES TIMEOUT 120)
endforeach()

# Of what is delivered there is one kind, so that sanitized builds have nothing to check here.
find_program(PYTHON3 NAMES python3)
if(PYTHON3 AND NOT LOCKSTEP_SANITIZE)
  add_test(NAME lib/abi COMMAND ${PYTHON3} ${PROJECT_SOURCE_DIR}/tests/lib/check_abi.py
    $<TARGET_FILE:lockstep_shared> ${CMAKE_C_COMPILER} --static ${PROJECT_BINARY_DIR}/liblockstep.a)
  add_test(NAME lib/install COMMAND ${PYTHON3} ${PROJECT_SOURCE_DIR}/tests/lib/check_install.py
    ${CMAKE_COMMAND} ${PROJECT_BINARY_DIR} ${CMAKE_C_COMPILER} ${CMAKE_CXX_COMPILER})
  add_test(NAME lib/reference COMMAND ${PYTHON3} ${PROJECT_SOURCE_DIR}/tools/library-reference --check)
  set_tests_properties(lib/abi lib/install lib/reference PROPERTIES TIMEOUT 300)
endif()
