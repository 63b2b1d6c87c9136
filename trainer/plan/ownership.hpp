// Buckets of the flat space, and which rank owns which piece of each.
//
// Parameters stand in the flat space in the order of the forward pass, so their gradients become final from
// its end towards its beginning; buckets are cut from the end, and one is reduced as soon as all its
// gradients are final. Every bucket is divided over all ranks, so that each rank owns (updates, saves) 1/R of
// it. All borders are multiples of flat_block.
#pragma once

#include <cstdint>
#include <vector>

#include "model/graph/parameter_space.hpp"

namespace muster {

struct Range {
  std::int64_t begin = 0, end = 0;  // elements of the flat space
  std::int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

struct Bucket {
  Range range;
  std::vector<Range> pieces;  // by rank, consecutive; may be empty for small buckets
};

// About 25 MiB of f32: large enough for the bandwidth of a network, small enough to start early.
inline constexpr std::int64_t bucket_elements = 1600 * flat_block;

// In the order in which they become ready: from the end of the space.
std::vector<Bucket> make_buckets(std::int64_t elements, int ranks);

// Elements that `rank` owns.
std::int64_t owned_elements(const std::vector<Bucket>& buckets, int rank);

// The parts of parameters that lie in a range, padding between and inside tensors left out.
struct Segment {
  std::size_t parameter = 0;
  std::int64_t flat = 0;   // where it begins in the flat space
  std::int64_t begin = 0;  // elements of the tensor, row-major
  std::int64_t end = 0;
};
std::vector<Segment> segments(const ParameterSpace& parameters, Range range);

}  // namespace muster
