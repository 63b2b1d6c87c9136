// Counts of whole blocks.
#pragma once

#include <cstdint>

#include "model/ops/cpu/isa.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return divide_up(a, b) * b; }

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA
