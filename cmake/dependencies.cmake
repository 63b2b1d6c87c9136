# What Muster is built on; launch/setup installs all of it from the distribution's packages.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(MPI REQUIRED COMPONENTS CXX)
find_package(ZLIB REQUIRED)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(zstd REQUIRED IMPORTED_TARGET libzstd)

# The library may have been built for the widest vectors of each processor, beside those that all have.
include(CheckCXXSymbolExists)
set(CMAKE_REQUIRED_LIBRARIES PkgConfig::xxhash)
check_cxx_symbol_exists(XXH3_64bits_dispatch xxh_x86dispatch.h MUSTER_XXHASH_DISPATCHES)
unset(CMAKE_REQUIRED_LIBRARIES)

# Debian ships the serial HDF5 beside parallel ones; only the C library of the serial one is used.
pkg_search_module(hdf5 REQUIRED IMPORTED_TARGET hdf5-serial hdf5)
add_library(hdf5_c ALIAS PkgConfig::hdf5)

# Debian's oneDNN package file asks for OpenCL headers that nothing here needs, so the library is found directly.
find_library(DNNL_LIBRARY dnnl REQUIRED)
find_path(DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.hpp REQUIRED)
add_library(DNNL::dnnl INTERFACE IMPORTED)
target_include_directories(DNNL::dnnl SYSTEM INTERFACE ${DNNL_INCLUDE_DIR})
# Its threads are OpenMP's, of gcc's runtime; model/ops/onednn_product.cpp tells that to use one.
target_link_libraries(DNNL::dnnl INTERFACE ${DNNL_LIBRARY} gomp)
