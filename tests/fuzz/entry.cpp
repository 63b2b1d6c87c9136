// Where libFuzzer calls a target.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  muster::fuzz::read_or_refuse([&] { muster::fuzz::read({reinterpret_cast<const char*>(data), size}); });
  return 0;
}
