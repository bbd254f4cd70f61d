# How rooms, tests and benchmarks are declared. All compiler settings live here.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

add_library(pyrometer_settings INTERFACE)
target_include_directories(pyrometer_settings INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(pyrometer_settings INTERFACE -Wall -Wextra -Wshadow -Wno-missing-field-initializers
                       -fno-omit-frame-pointer
                       # g++ 12 warns of impossible overlaps in std::string operator+ (GCC bug 105651).
                       $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(PYROMETER_WERROR)
  target_compile_options(pyrometer_settings INTERFACE -Werror)
endif()
# Library assertions of libstdc++ in debug builds: out-of-range indices abort instead of reading on.
target_compile_definitions(pyrometer_settings INTERFACE $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>)
find_package(Threads REQUIRED)
target_link_libraries(pyrometer_settings INTERFACE Threads::Threads)

# pyrometer_room(NAME SOURCES a.cc … [DEPS public…] [PRIVATE_DEPS …])
# One static library `pyrometer_NAME`. DEPS are what its headers expose.
function(pyrometer_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(pyrometer_${name} STATIC ${ROOM_SOURCES})
  target_link_libraries(pyrometer_${name} PUBLIC pyrometer_settings ${ROOM_DEPS} PRIVATE ${ROOM_PRIVATE_DEPS})
endfunction()

# pyrometer_test(NAME LABEL unit|kernel|containers|e2e|fuzz SOURCES … DEPS … [TIMEOUT s] [SERIAL])
# One GoogleTest program, run by CTest as one test named NAME. SERIAL: no other test beside it
# (it measures, or changes state of the whole machine).
function(pyrometer_test name)
  cmake_parse_arguments(TEST "SERIAL" "LABEL;TIMEOUT" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${TEST_SOURCES})
  target_link_libraries(${name} PRIVATE pyrometer_settings ${TEST_DEPS} GTest::gmock GTest::gtest_main)
  # Compiling a test takes longer than running it: -O1 -g1 was seen to take half the time of -O2 -g.
  target_compile_options(${name} PRIVATE $<$<CONFIG:RelWithDebInfo>:-O1$<SEMICOLON>-g1>)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(NOT TEST_TIMEOUT)
    set(TEST_TIMEOUT 120)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${TEST_LABEL}" TIMEOUT ${TEST_TIMEOUT})
  if(TEST_SERIAL)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()

# pyrometer_benchmark(NAME SOURCES … DEPS …): a Google Benchmark program, built with -DPYROMETER_BENCHMARKS=ON.
function(pyrometer_benchmark name)
  if(NOT PYROMETER_BENCHMARKS)
    return()
  endif()
  cmake_parse_arguments(BENCH "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${BENCH_SOURCES})
  target_link_libraries(${name} PRIVATE pyrometer_settings ${BENCH_DEPS} benchmark::benchmark_main)
endfunction()
