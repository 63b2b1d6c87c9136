// The instruction sets that the CPU kernels are compiled for, and which of them this process uses: the best that the
// processor has, or what the environment variable MUSTER_INSTRUCTION_SET lowers it to (for tests, and for clusters of
// unlike nodes: bits depend on it).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace muster {

// Each has all of the one before it.
enum class InstructionSet : std::uint8_t {
  baseline,     // what every processor of this architecture has: SSE2, NEON
  avx2,         // with FMA
  avx512,       // F, BW, DQ, VL
  avx512_bf16,  // products of pairs of bf16
  amx,          // tiles of bf16
};

// As a user writes it: "sse2" or "neon", "avx2", "avx512", "avx512_bf16", "amx".
std::string_view spelling(InstructionSet set);

// All that this processor has and its system saves, the least first.
std::vector<InstructionSet> instruction_sets_of_processor();

// The one to use of `has` where the user wants `wanted` (empty: the best). Throws UserError if it is none of them.
InstructionSet choose_instruction_set(const std::vector<InstructionSet>& has, std::string_view wanted);

// Of this process, chosen at the first call.
InstructionSet instruction_set();

}  // namespace muster
