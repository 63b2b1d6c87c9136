# CUDA: MUSTER_CUDA = "auto" (for this machine's GPUs if there are any, and the toolkit), "on" (for all GPUs, which is
# nearly half of the build's time), "off", or "host": the CUDA backend linked with the stand-in of tests/cuda_on_host
# instead of NVIDIA's libraries, to run without a GPU.
set(MUSTER_CUDA "auto" CACHE STRING "auto, on, off, or host")
include(${CMAKE_CURRENT_LIST_DIR}/cuda_choice.cmake)
set(MUSTER_CUDA_ARCHITECTURES "" CACHE STRING
    "GPUs to compile for, as 80;90;100; PTX of the last is added; empty: this machine's (auto) or all of them (on)")

# Wheels of NVIDIA's toolkit, where launch/setup --cuda put them.
list(APPEND CMAKE_PREFIX_PATH ${PROJECT_SOURCE_DIR}/.cuda)
set(MUSTER_HAS_CUDA OFF)
set(MUSTER_CUDNN OFF)

# Why there is no CUDA: an error where it was asked for.
function(muster_without_cuda why)
  if(MUSTER_CUDA STREQUAL "on")
    message(FATAL_ERROR "MUSTER_CUDA is on, but ${why}: ./launch/setup --cuda installs what is missing")
  endif()
  message(STATUS "CUDA: ${why}; ./launch/setup --cuda installs what is missing")
endfunction()

# Compute capabilities of this machine's GPUs, as 80;90, of those that Muster runs on; empty without a driver.
function(muster_own_gpus result)
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
                  OUTPUT_VARIABLE told RESULT_VARIABLE failed ERROR_QUIET)
  set(own)
  if(failed EQUAL 0)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]" own "${told}")
    list(TRANSFORM own REPLACE "\\." "")
    list(FILTER own EXCLUDE REGEX "^[0-7].$")  # older than 8.0
    list(SORT own COMPARE NATURAL)
    list(REMOVE_DUPLICATES own)
  endif()
  set(${result} ${own} PARENT_SCOPE)
endfunction()

set(architectures 80 90 100)
if(MUSTER_CUDA STREQUAL "auto")
  muster_own_gpus(architectures)
endif()

if(MUSTER_CUDA STREQUAL "host")
  find_path(CUDA_INCLUDE_DIR cuda_runtime.h PATHS /usr/local/cuda/include ${PROJECT_SOURCE_DIR}/.cuda/include REQUIRED)
  set(MUSTER_HAS_CUDA ON)
elseif(MUSTER_CUDA STREQUAL "auto" AND NOT architectures)
  message(STATUS "CUDA: no GPU here; MUSTER_CUDA=on compiles for others")
elseif(NOT MUSTER_CUDA STREQUAL "off")
  # What was not found before may have come since.
  if(NOT CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE)
    find_program(nvcc nvcc NO_CACHE PATHS /usr/local/cuda/bin)
    if(nvcc)
      set(CMAKE_CUDA_COMPILER ${nvcc})
    endif()
  endif()
  if(MUSTER_CUDA_ARCHITECTURES)
    set(architectures ${MUSTER_CUDA_ARCHITECTURES})
  endif()
  list(GET architectures -1 last)
  get_filename_component(toolkit "${CMAKE_CUDA_COMPILER}" DIRECTORY)
  find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${toolkit}/../lib64 ${toolkit}/../lib PATHS /usr/local/cuda/lib64)
  set(asked "${CMAKE_CUDA_COMPILER} for sm_${last}")
  if(CMAKE_CUDA_COMPILER AND NOT MUSTER_NVCC_SERVES STREQUAL asked)
    # An old toolkit knows neither the newest GPUs nor this compiler.
    file(WRITE ${CMAKE_BINARY_DIR}/nvcc_serves.cu "#include <span>\n__global__ void nothing() {}\n")
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} -std=c++20 -arch=sm_${last} -c nvcc_serves.cu -o nvcc_serves.o
                    WORKING_DIRECTORY ${CMAKE_BINARY_DIR} RESULT_VARIABLE refused OUTPUT_QUIET ERROR_QUIET)
    if(refused EQUAL 0)
      set(MUSTER_NVCC_SERVES ${asked} CACHE INTERNAL "What compiles C++20, for the newest of the architectures")
    endif()
  endif()
  if(NOT CMAKE_CUDA_COMPILER)
    muster_without_cuda("there is no nvcc")
  elseif(NOT MUSTER_NVCC_SERVES STREQUAL asked)
    muster_without_cuda("${CMAKE_CUDA_COMPILER} cannot compile C++20 for sm_${last} with this compiler")
  elseif(NOT NCCL_LIBRARY)
    muster_without_cuda("there is no NCCL")
  else()
    set(MUSTER_HAS_CUDA ON)
    set(CMAKE_CUDA_ARCHITECTURES ${architectures})
    list(TRANSFORM CMAKE_CUDA_ARCHITECTURES APPEND "-real")
    list(APPEND CMAKE_CUDA_ARCHITECTURES ${last}-virtual)
    enable_language(CUDA)
    set(CMAKE_CUDA_STANDARD 20)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know yet that nvcc can
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    endif()
    find_package(CUDAToolkit REQUIRED)
    # Only headers: cuDNN itself is loaded when a model first asks for it.
    find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ${PROJECT_SOURCE_DIR}/.cuda/include)
    find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h HINTS ${PROJECT_SOURCE_DIR}/.cuda/include)
    if(CUDNN_INCLUDE_DIR AND CUDNN_FRONTEND_INCLUDE_DIR)
      set(MUSTER_CUDNN ON)
    endif()
  endif()
endif()

# For --version.
set(MUSTER_BACKENDS "cpu")
if(MUSTER_CUDA STREQUAL "host")
  string(APPEND MUSTER_BACKENDS ", cuda (a stand-in on the host, for tests)")
elseif(MUSTER_HAS_CUDA)
  list(JOIN architectures ", " compiled_for)
  string(APPEND MUSTER_BACKENDS ", cuda (sm ${compiled_for} with nccl")
  if(MUSTER_CUDNN)
    string(APPEND MUSTER_BACKENDS " and cudnn")
  endif()
  string(APPEND MUSTER_BACKENDS ")")
endif()

# What CUDA sources need, whichever of the two they are linked with; empty without CUDA.
add_library(muster_cuda INTERFACE)
if(MUSTER_CUDA STREQUAL "host")
  # Its core/cuda/launch.hpp must be found before the project's own.
  include_directories(BEFORE ${PROJECT_SOURCE_DIR}/tests/cuda_on_host/include)
  add_subdirectory(tests/cuda_on_host)
  target_link_libraries(muster_cuda INTERFACE cuda_on_host)
elseif(MUSTER_HAS_CUDA)
  target_include_directories(muster_cuda SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(muster_cuda INTERFACE CUDA::cudart CUDA::cublasLt ${NCCL_LIBRARY})
endif()
message(STATUS "Backends: ${MUSTER_BACKENDS}")
