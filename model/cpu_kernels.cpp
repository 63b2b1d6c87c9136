// Which of the copies of model/ops/cpu and model/update/cpu runs: each was compiled for one instruction set.
#include "model/ops/kernel.hpp"
#include "model/update/flat_kernels.hpp"
#include "model/update/fresh_values.hpp"

namespace muster {
namespace {

struct Level {
  const KernelTable& (*kernels)();
  const FlatKernels& (*flat_kernels)();
  void (*fill_normal)(std::span<float>, std::int64_t, float, std::uint32_t, std::uint64_t);
};

}  // namespace

#define MUSTER_LEVEL(set)                                                                \
  namespace cpu::set {                                                                   \
  const KernelTable& kernels();                                                          \
  const FlatKernels& flat_kernels();                                                     \
  void fill_normal(std::span<float>, std::int64_t, float, std::uint32_t, std::uint64_t); \
  constexpr Level level = {kernels, flat_kernels, fill_normal};                          \
  }

MUSTER_LEVEL(baseline)
#if defined(__x86_64__)
MUSTER_LEVEL(avx2)
MUSTER_LEVEL(avx512)
MUSTER_LEVEL(avx512_bf16)
#endif

namespace {

const Level& level_of(InstructionSet set) {
  switch (set) {
#if defined(__x86_64__)
    case InstructionSet::avx2:
      return cpu::avx2::level;
    case InstructionSet::avx512:
      return cpu::avx512::level;
    case InstructionSet::avx512_bf16:
    case InstructionSet::amx:
      return cpu::avx512_bf16::level;  // tiles are oneDNN's (model/ops/cpu/matmul.hpp)
#endif
    default:
      return cpu::baseline::level;
  }
}

}  // namespace

const KernelTable& cpu_kernels(InstructionSet set) { return level_of(set).kernels(); }
const FlatKernels& cpu_flat_kernels(InstructionSet set) { return level_of(set).flat_kernels(); }

void fill_normal(std::span<float> x, std::int64_t first, float scale, std::uint32_t key, std::uint64_t seed) {
  level_of(instruction_set()).fill_normal(x, first, scale, key, seed);
}

}  // namespace muster
