#include <algorithm>
#include <fmt/format.h>

#include "model/ops/cuda/attention_library.hpp"
#include "model/ops/cuda/segment_layout.hpp"

namespace muster::cuda {
namespace {

// A slice's workspace, so that long sequences do not take tens of gigabytes; one group of heads at the least. Enough
// work for a GPU all the same: at 1,024 tokens some 500 heads of 8 tiles of queries, at 16,384 two of 128.
constexpr std::uint64_t slice_bytes = std::uint64_t{1} << 30;
// So many calls for one gradient cost little beside what they compute.
constexpr std::int64_t most_segment_slices = 8;
// What a plan takes beside what grows with the shapes, and for each segment.
constexpr std::uint64_t plan_bytes = std::uint64_t{1} << 20, segment_bytes = 512;

std::uint64_t up(std::int64_t value, std::int64_t multiple) {
  return static_cast<std::uint64_t>((value + multiple - 1) / multiple * multiple);
}

// Of one head: dP in bf16, in whole tiles (sm_80, sm_90; sm_100 does without); the row sums of do . o, f32; with
// grouped queries dk and dv of each query head, in f32 at most.
std::uint64_t head_bytes(const AttentionShape& shape, std::int64_t queries, std::int64_t keys) {
  const std::uint64_t rows = up(queries, 128), columns = up(keys, 128), size = up(shape.head_size, 64);
  const std::uint64_t grouped = shape.heads == shape.kv_heads ? 0 : 2 * columns * size * 4;
  return rows * columns * 2 + rows * 4 + grouped;
}

std::uint64_t bytes_of(const LibrarySlice& slice, const AttentionShape& shape, std::int64_t queries,
                       std::int64_t keys) {
  const std::int64_t heads = slice.samples * slice.kv_heads * (shape.heads / shape.kv_heads);
  return static_cast<std::uint64_t>(heads) * head_bytes(shape, queries, keys);
}

}  // namespace

std::string library_unsuited(const AttentionShape& shape, DType type, std::int64_t queries, std::int64_t keys,
                             std::int64_t segments) {
  if (type != DType::bf16) return "cuDNN's attention is bf16";
  if (shape.dropout > 0) return "cuDNN's dropout draws other random numbers";
  if (segments == 0) return {};
  // Any segment may be as long as a sample, and there may be as many as their starts have room for.
  const LibrarySlice slice = library_gradient_slice(shape, queries, keys, segments);
  if (const std::uint64_t bytes = bytes_of(slice, shape, queries, keys); bytes > slice_bytes)
    return fmt::format(
        "the gradient of a segment of {} queries and {} keys would take {:.1f} GiB, more than {}", queries,
        keys, static_cast<double>(bytes) / 0x1p30, slice_bytes >> 30);
  if (segments > most_segment_slices * slice.samples)
    return fmt::format("the gradient of up to {} segments would be computed {} at a time", segments,
                       slice.samples);
  return {};
}

LibrarySlice library_gradient_slice(const AttentionShape& shape, std::int64_t queries, std::int64_t keys,
                                    std::int64_t segments) {
  const std::int64_t samples = segments > 0 ? segments : shape.batch;
  const int group = shape.heads / shape.kv_heads;
  const auto most_heads = static_cast<std::int64_t>(slice_bytes / head_bytes(shape, queries, keys));
  LibrarySlice slice{std::clamp<std::int64_t>(most_heads / shape.heads, 1, samples), shape.kv_heads};
  if (segments > 0) return slice;
  while (samples % slice.samples != 0) --slice.samples;
  if (most_heads < shape.heads) {
    slice.kv_heads = static_cast<int>(std::max<std::int64_t>(most_heads / group, 1));
    while (shape.kv_heads % slice.kv_heads != 0) --slice.kv_heads;
  }
  return slice;
}

std::uint64_t library_workspace(const AttentionShape&, std::int64_t, std::int64_t, std::int64_t segments) {
  return plan_bytes +
         (segments > 0 ? SegmentLayout::bytes(segments) + static_cast<std::uint64_t>(segments) * segment_bytes
                       : 0);
}

std::uint64_t library_gradient_workspace(const AttentionShape& shape, std::int64_t queries, std::int64_t keys,
                                         std::int64_t segments) {
  const LibrarySlice slice = library_gradient_slice(shape, queries, keys, segments);
  std::uint64_t bytes = plan_bytes + bytes_of(slice, shape, queries, keys);
  if (segments > 0)
    bytes +=
        SegmentLayout::bytes(segments + slice.samples) + static_cast<std::uint64_t>(segments) * segment_bytes;
  return bytes;
}

}  // namespace muster::cuda
