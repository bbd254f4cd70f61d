# BPF programs: probe.bpf.c -> object (BTF kept, DWARF stripped) -> skeleton header -> interface library.
# All BPF compiler settings live here. Needs clang, llvm-strip, llvm-readelf and bpftool; no BTF on the build
# machine (bpf/lib/kernel_types.h says why).

# Run as a script (cmake -DOBJECT=… -P PyrometerBpf.cmake): prints instructions per program, so that growth
# is seen where it happens. Sub-programs are listed like programs.
if(CMAKE_SCRIPT_MODE_FILE)
  execute_process(COMMAND ${READELF} -sW ${OBJECT} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[0-9]+ FUNC [^\n]*" functions "${symbols}")
  set(report "")
  foreach(function IN LISTS functions)
    string(REGEX MATCH "^([0-9]+) FUNC .* ([^ ]+)$" unused "${function}")
    math(EXPR instructions "${CMAKE_MATCH_1} / 8")
    string(APPEND report " ${CMAKE_MATCH_2}=${instructions}")
  endforeach()
  get_filename_component(name ${OBJECT} NAME_WE)
  message("BPF ${name}, instructions:${report}")
  return()
endif()

find_program(PYROMETER_CLANG NAMES clang clang-14 clang-15 clang-16 clang-17 clang-18 clang-19 REQUIRED)
find_program(PYROMETER_LLVM_STRIP NAMES llvm-strip llvm-strip-14 llvm-strip-15 llvm-strip-16 REQUIRED)
find_program(PYROMETER_LLVM_READELF NAMES llvm-readelf llvm-readelf-14 llvm-readelf-15 llvm-readelf-16 readelf REQUIRED)
find_program(PYROMETER_BPFTOOL NAMES bpftool PATHS /usr/sbin /sbin REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(LIBBPF REQUIRED IMPORTED_TARGET libbpf>=1.0)

# pyrometer_bpf(NAME): builds bpf/probes/NAME.bpf.c. Link pyrometer_bpf_NAME and include "bpf/NAME.skel.h".
function(pyrometer_bpf name)
  set(source ${PROJECT_SOURCE_DIR}/bpf/probes/${name}.bpf.c)
  set(folder ${PROJECT_BINARY_DIR}/generated/bpf)
  set(object ${folder}/${name}.bpf.o)
  set(skeleton ${folder}/${name}.skel.h)
  file(MAKE_DIRECTORY ${folder})
  set(flags -g -O2 -target bpf -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -I${PROJECT_SOURCE_DIR}
      -D__TARGET_ARCH_x86)
  # Multiarch distributions keep asm/types.h here; -target bpf does not look.
  if(CMAKE_LIBRARY_ARCHITECTURE)
    list(APPEND flags -idirafter /usr/include/${CMAKE_LIBRARY_ARCHITECTURE})
  endif()
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${PYROMETER_CLANG} ${flags} -MD -MT ${object} -MF ${object}.d -c ${source} -o ${object}
    COMMAND ${PYROMETER_LLVM_STRIP} -g ${object}
    COMMAND ${CMAKE_COMMAND} -DOBJECT=${object} -DREADELF=${PYROMETER_LLVM_READELF}
            -P ${CMAKE_CURRENT_FUNCTION_LIST_FILE}
    DEPENDS ${source} ${CMAKE_CURRENT_FUNCTION_LIST_FILE}
    DEPFILE ${object}.d
    COMMENT "BPF ${name}" VERBATIM)
  add_custom_command(
    OUTPUT ${skeleton}
    COMMAND ${PYROMETER_BPFTOOL} gen skeleton ${object} name ${name}_bpf > ${skeleton}.tmp
    COMMAND ${CMAKE_COMMAND} -E rename ${skeleton}.tmp ${skeleton}
    DEPENDS ${object}
    COMMENT "BPF ${name} skeleton" VERBATIM)
  add_custom_target(pyrometer_bpf_${name}_skeleton DEPENDS ${skeleton})
  add_library(pyrometer_bpf_${name} INTERFACE)
  add_dependencies(pyrometer_bpf_${name} pyrometer_bpf_${name}_skeleton)
  # SYSTEM: generated code is not held to our warnings.
  target_include_directories(pyrometer_bpf_${name} SYSTEM INTERFACE ${PROJECT_BINARY_DIR}/generated)
  target_link_libraries(pyrometer_bpf_${name} INTERFACE PkgConfig::LIBBPF)
endfunction()
