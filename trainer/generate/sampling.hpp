// Draws the next token from logits.
#pragma once

#include <cstdint>
#include <span>

namespace muster {

struct Sampling {
  double temperature = 1;  // 0: always the likeliest token
  std::int64_t top_k = 0;  // only the k likeliest; 0: all
  double top_p = 1;        // only the likeliest that together reach this probability (Holtzman et al. 2020)
  std::uint64_t seed = 1;
  std::int64_t vocabulary = 0;  // only the first so many tokens, which stand for text; 0: all of the model's
};

// The token for draw number `draw`; equal logits, options and draw give the same token.
std::int32_t sample(std::span<const float> logits, const Sampling& options, std::uint32_t draw);

}  // namespace muster
