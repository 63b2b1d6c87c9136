# What is compiled is kept by ccache where that is installed, and names files from the root of the tree: another clone,
# worktree or preset takes it as it is.
file(RELATIVE_PATH to_root ${CMAKE_BINARY_DIR} ${PROJECT_SOURCE_DIR})
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # Paths below the root become relative ones; where the compiler was started is no part of what it makes.
  set(launcher env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${launcher})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${launcher})
  set(root ${to_root})
else()
  set(root ${PROJECT_SOURCE_DIR}/)
endif()
# In messages (core/error.hpp), and in debug information, whose own folder is the root, too.
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-ffile-prefix-map=${root}=;-fdebug-prefix-map=${CMAKE_BINARY_DIR}=.>"
                    "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-ffile-prefix-map=${root}=>")
