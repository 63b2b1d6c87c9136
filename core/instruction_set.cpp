#include "core/instruction_set.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>

#include "core/error.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace muster {
namespace {

#if defined(__x86_64__)
constexpr std::string_view baseline_spelling = "sse2";

// Linux gives the memory for tiles to those who ask for it; threads inherit the permission, so it is asked for before
// there are any.
bool system_saves_tiles() {
  constexpr long request_permission = 0x1023,
                 tile_data = 18;  // arch_prctl: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

bool has_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & amx_bf16) != 0 && (d & amx_tile) != 0 &&
         system_saves_tiles();
}

bool has_bf16_products() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned avx512_bf16 = 1u << 5;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & avx512_bf16) != 0;
}

// How many of the sets it has; __builtin_cpu_supports also asks whether the system saves the registers.
int levels_of_processor() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 1;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
    return 2;
  if (!has_bf16_products()) return 3;
  return has_tiles() ? 5 : 4;
}
#else
constexpr std::string_view baseline_spelling = "neon";

int levels_of_processor() { return 1; }
#endif

}  // namespace

std::string_view spelling(InstructionSet set) {
  constexpr std::array<std::string_view, 5> names = {baseline_spelling, "avx2", "avx512", "avx512_bf16",
                                                     "amx"};
  return names[static_cast<std::size_t>(set)];
}

std::vector<InstructionSet> instruction_sets_of_processor() {
  std::vector<InstructionSet> sets;
  for (int level = 0; level < levels_of_processor(); ++level)
    sets.push_back(static_cast<InstructionSet>(level));
  return sets;
}

InstructionSet choose_instruction_set(const std::vector<InstructionSet>& has, std::string_view wanted) {
  if (wanted.empty()) return has.back();
  const auto found = std::ranges::find(has, wanted, spelling);
  if (found != has.end()) return *found;
  std::string known;
  for (const InstructionSet set : has) known += fmt::format("{}{}", known.empty() ? "" : ", ", spelling(set));
  throw UserError("MUSTER_INSTRUCTION_SET={}: this processor has {}; unset it to use the last of these",
                  wanted, known);
}

InstructionSet instruction_set() {
  static const InstructionSet chosen = [] {
    const char* const wanted = std::getenv("MUSTER_INSTRUCTION_SET");
    return choose_instruction_set(instruction_sets_of_processor(), wanted == nullptr ? "" : wanted);
  }();
  return chosen;
}

}  // namespace muster
