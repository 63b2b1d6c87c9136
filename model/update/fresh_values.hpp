// Fresh weights. They are drawn on the host, so that they are the same on every device.
#pragma once

#include <cstdint>
#include <span>

namespace muster {

// x[i] = scale * normal(element first + i), Box-Muller on philox((e / 4, 0, 0, key), seed): words 0, 1 give
// elements 4k and 4k+1, words 2, 3 the next two: r cos(a) and r sin(a) with r = sqrt(-2 ln(1 - uniform(word
// 0))) and a = 2 pi uniform(word 1). `first` is a multiple of 4.
void fill_normal(std::span<float> x, std::int64_t first, float scale, std::uint32_t key, std::uint64_t seed);

}  // namespace muster
