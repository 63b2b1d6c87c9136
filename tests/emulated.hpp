// Whether an emulator runs the tests, of another processor's program: the preset says so to ctest (CMakePresets.json).
#pragma once

#include <cstdlib>

namespace muster {

inline bool emulated() { return std::getenv("MUSTER_EMULATED") != nullptr; }

}  // namespace muster
