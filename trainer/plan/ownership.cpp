#include "trainer/plan/ownership.hpp"

#include <algorithm>

namespace muster {

std::vector<Bucket> make_buckets(std::int64_t elements, int ranks) {
  std::vector<Bucket> buckets;
  for (std::int64_t end = elements; end > 0;) {
    const std::int64_t begin = std::max<std::int64_t>(0, end - bucket_elements);
    Bucket bucket{{begin, end}, {}};
    const std::int64_t blocks = (end - begin) / flat_block;
    for (std::int64_t rank = 0; rank < ranks; ++rank)
      bucket.pieces.push_back(
          {begin + blocks * rank / ranks * flat_block, begin + blocks * (rank + 1) / ranks * flat_block});
    buckets.push_back(std::move(bucket));
    end = begin;
  }
  return buckets;
}

std::int64_t owned_elements(const std::vector<Bucket>& buckets, int rank) {
  std::int64_t sum = 0;
  for (const Bucket& bucket : buckets) sum += bucket.pieces[static_cast<std::size_t>(rank)].size();
  return sum;
}

std::vector<Segment> segments(const ParameterSpace& parameters, Range range) {
  std::vector<Segment> found;
  // The last tensor that begins at or before the range.
  const auto after = std::ranges::upper_bound(parameters, range.begin, {}, &Parameter::offset);
  for (auto p = static_cast<std::size_t>(std::max<std::ptrdiff_t>(0, after - parameters.begin() - 1));
       p < parameters.size() && parameters[p].offset < range.end; ++p) {
    const std::int64_t offset = parameters[p].offset;
    const std::int64_t begin = std::max(range.begin, offset);
    const std::int64_t end = std::min(range.end, offset + elements_of(parameters[p].logical_shape()));
    if (begin < end) found.push_back({p, begin, begin - offset, end - offset});
  }
  return found;
}

}  // namespace muster
