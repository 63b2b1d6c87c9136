// cuDNN builds the plans of every attention that Muster hands to it, on a machine without a GPU: for a GPU's properties
// (devices/), with a libcuda that loads every kernel and runs none (libcuda.cpp). Whether the workspace of the plan
// suffices is part of it. What these plans compute, only a GPU can tell.
#include <fstream>
#include <gtest/gtest.h>
#include <map>
#include <sstream>

#include "model/ops/cuda/attention_library.hpp"

namespace muster::cuda {
namespace {

struct Device {
  const char* name;
  int compute_capability;
};
constexpr Device ampere{"sm_80", 80}, hopper{"sm_90", 90}, blackwell{"sm_100", 100};

AttentionLibrary& library(const Device& device) {
  static std::map<int, std::unique_ptr<AttentionLibrary>> libraries;
  auto& library = libraries[device.compute_capability];
  if (!library) {
    std::ifstream file(std::string("tests/cudnn_plans/devices/") + device.name + ".json");
    EXPECT_TRUE(file.good());
    std::ostringstream properties;
    properties << file.rdbuf();
    library = make_attention_library_for(properties.str(), device.compute_capability);
  }
  return *library;
}

struct Attention {
  std::int64_t batch = 2;
  int heads = 4, kv_heads = 4, head_size = 64;
  std::int64_t queries = 256, keys = 256;
  bool causal = true;
  std::int64_t segments = 0;
  std::int64_t other_columns = 0;
  float dropout = 0;
  DType type = DType::bf16;
};

// Rows (q | k | v) as a model packs them.
std::string refusal(const Device& device, const Attention& a) {
  const AttentionShape shape =
      AttentionShape::packed(a.batch, a.heads, a.kv_heads, a.head_size, a.causal, a.dropout);
  const std::int64_t columns = std::int64_t{a.heads + 2 * a.kv_heads} * a.head_size + a.other_columns;
  return library(device).refusal(shape, {{a.batch * a.queries, columns}, a.type},
                                 {{a.batch * a.keys, columns}, a.type}, a.segments);
}

TEST(CudnnPlans, serve_every_head_size_on_hopper) {
  for (const int head_size : {64, 80, 96, 128, 256})
    EXPECT_EQ(refusal(hopper, {.head_size = head_size}), "") << head_size;
}

TEST(CudnnPlans, serve_attention_that_is_not_causal) { EXPECT_EQ(refusal(hopper, {.causal = false}), ""); }

TEST(CudnnPlans, serve_grouped_queries_and_lengths_that_fill_no_tile) {
  EXPECT_EQ(refusal(hopper, {.heads = 14, .kv_heads = 2, .queries = 257, .keys = 257}), "");
}

TEST(CudnnPlans, serve_more_keys_than_queries) {
  EXPECT_EQ(refusal(hopper, {.queries = 64, .keys = 192}), "");
  EXPECT_EQ(refusal(hopper, {.queries = 64, .keys = 192, .causal = false}), "");
}

TEST(CudnnPlans, serve_more_queries_than_keys) {
  EXPECT_EQ(refusal(hopper, {.queries = 192, .keys = 64}), "");
  EXPECT_EQ(refusal(hopper, {.queries = 192, .keys = 64, .causal = false}), "");
}

TEST(CudnnPlans, serve_long_sequences_in_slices_of_heads) {
  const Attention a{
      .batch = 2, .heads = 32, .kv_heads = 8, .head_size = 128, .queries = 16384, .keys = 16384};
  const AttentionShape shape = AttentionShape::packed(a.batch, a.heads, a.kv_heads, a.head_size, true, 0);
  const LibrarySlice slice = library_gradient_slice(shape, a.queries, a.keys, 0);
  EXPECT_EQ(slice.samples, 1);
  EXPECT_EQ(slice.kv_heads, 1);
  EXPECT_EQ(refusal(hopper, a), "");
}

TEST(CudnnPlans, serve_segments) {
  EXPECT_EQ(refusal(hopper, {.heads = 7, .kv_heads = 1, .segments = 9}), "");
  EXPECT_EQ(refusal(hopper, {.queries = 257, .keys = 257, .causal = false, .segments = 70}), "");
  EXPECT_EQ(refusal(blackwell, {.segments = 9}), "");
  EXPECT_NE(refusal(ampere, {.segments = 9}), "");
}

// As the decoder of a translation attends to its encoder, one query at a time in the end.
TEST(CudnnPlans, serve_segments_of_other_lengths_in_queries_and_keys) {
  for (const Device& device : {hopper, blackwell})
    for (const bool causal : {false, true})
      for (const auto& [queries, keys] : {std::pair{257, 96}, {64, 384}, {1, 257}}) {
        const Attention a{
            .heads = 7, .kv_heads = 1, .queries = queries, .keys = keys, .causal = causal, .segments = 9};
        EXPECT_EQ(refusal(device, a), "") << device.name << ' ' << queries << " x " << keys << ' ' << causal;
      }
}

// 256 segments of up to 1,024 tokens: a workspace of theirs at once would be 6 GiB.
TEST(CudnnPlans, serve_many_segments_in_slices) {
  const AttentionShape shape = AttentionShape::packed(4, 12, 12, 64, true, 0);
  EXPECT_LT(library_gradient_workspace(shape, 1024, 1024, 256), std::uint64_t{5} << 28);
  EXPECT_EQ(
      refusal(hopper,
              {.batch = 4, .heads = 12, .kv_heads = 12, .queries = 1024, .keys = 1024, .segments = 256}),
      "");
}

TEST(CudnnPlans, serve_ampere_and_blackwell_up_to_heads_of_128) {
  for (const Device& device : {ampere, blackwell}) {
    EXPECT_EQ(refusal(device, {.head_size = 64}), "") << device.name;
    EXPECT_EQ(refusal(device, {.heads = 4, .kv_heads = 2, .head_size = 128, .queries = 257, .keys = 257}), "")
        << device.name;
  }
  EXPECT_NE(refusal(ampere, {.head_size = 256}).find("128"), std::string::npos);
}

TEST(CudnnPlans, refuse_in_one_line_what_other_kernels_compute) {
  EXPECT_EQ(refusal(hopper, {.type = DType::f32}), "cuDNN's attention is bf16");
  EXPECT_EQ(refusal(hopper, {.dropout = 0.1F}), "cuDNN's dropout draws other random numbers");
  EXPECT_EQ(refusal(hopper, {.other_columns = 4}), "cuDNN wants columns in multiples of 8, not 772");
  const std::string odd_heads = refusal(hopper, {.head_size = 36});
  EXPECT_NE(odd_heads.find("multiple of 8"), std::string::npos) << odd_heads;
  EXPECT_EQ(odd_heads.find('\n'), std::string::npos) << odd_heads;
}

}  // namespace
}  // namespace muster::cuda
