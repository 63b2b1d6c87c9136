// How a graph computes: the type of its numbers, and what backward computes again.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace muster {

// Type of activations and of the compute copies of matrices.
enum class Precision : std::uint8_t { f32, bf16 };
constexpr auto spellings(Precision) { return std::array<std::string_view, 2>{"f32", "bf16"}; }

enum class Recompute : std::uint8_t {
  none,   // keep every activation that backward reads
  norms,  // drop what is cheap to compute again: norms and activation functions
  block,  // keep the residual stream at block borders, run each block's forward again before its backward
};
constexpr auto spellings(Recompute) { return std::array<std::string_view, 3>{"none", "norms", "block"}; }

}  // namespace muster
