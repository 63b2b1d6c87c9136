// What a model is told: its family and its shape.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace muster {

enum class Family : std::uint8_t { gpt, llama, bert };
constexpr auto spellings(Family) { return std::array<std::string_view, 3>{"gpt", "llama", "bert"}; }

// The zeroes below are filled in by the family (FamilyEntry::resolve), the vocabulary by whoever knows the
// tokenizer.
struct ModelConfig {
  Family family = Family::gpt;
  std::int64_t layers = 12;
  std::int64_t width = 768;
  std::int64_t heads = 12;
  std::int64_t kv_heads = 0;      // 0: heads
  std::int64_t feed_forward = 0;  // 0: gpt 4 * width; llama 8/3 * width, rounded up to a multiple of 128
  std::int64_t vocabulary = 0;    // 0: that of the dataset's tokenizer
  std::int64_t context = 0;       // 0: train.sequence
  double dropout = 0;
  bool tied = true;
  bool qkv_bias = false;
  double rope_base = 10000;
  double norm_epsilon = 1e-5;
  double mask = 0.15;            // bert: the share of tokens that are to be restored
  std::int64_t token_types = 2;  // bert
  bool operator==(const ModelConfig&) const = default;
};

}  // namespace muster
