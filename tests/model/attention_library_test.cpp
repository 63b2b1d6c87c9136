// Which attention is left to the library (cuDNN), by shapes alone, and what a plan keeps for it.
#include "model/ops/cuda/attention_library.hpp"

#include <gtest/gtest.h>
#include <memory>

#include "model/ops/attention.hpp"
#include "model/ops/cuda/workspace.hpp"

namespace muster::cuda {
namespace {

constexpr std::uint64_t gib = std::uint64_t{1} << 30;

struct Case {
  std::int64_t batch, tokens;
  int heads, kv_heads, head_size;
  std::int64_t segments;
  AttentionShape shape() const { return AttentionShape::packed(batch, heads, kv_heads, head_size, true, 0); }
};
constexpr Case few_short{4, 1024, 12, 12, 64, 256}, many{8, 4096, 16, 8, 128, 2048},
    lengthy{1, 32768, 32, 8, 128, 2048}, one_lengthy{1, 32768, 32, 32, 128, 1};

std::string unsuited(const Case& c, DType type = DType::bf16) {
  return library_unsuited(c.shape(), type, c.tokens, c.tokens, c.segments);
}

// What a plan keeps for both kernels: forward, gradient.
std::pair<std::uint64_t, std::uint64_t> workspaces(const Case& c) {
  const TensorType rows{{c.batch * c.tokens, std::int64_t{c.heads + 2 * c.kv_heads} * c.head_size},
                        DType::bf16};
  const TensorType out{{c.batch * c.tokens, std::int64_t{c.heads} * c.head_size}, DType::bf16};
  const TensorType lse{{c.batch, c.heads, c.tokens}, DType::f32}, starts{{c.segments + 1}, DType::i32};
  const Attention forward(c.shape());
  const AttentionGradient gradient(c.shape(), true);
  return {
      attention_workspace(forward, std::vector{rows, rows, starts, starts}, {}, 1),
      attention_gradient_workspace(gradient, std::vector{out, rows, rows, out, lse, starts, starts}, {}, 1)};
}

TEST(AttentionLibrary, computes_segments_in_a_few_slices) {
  EXPECT_EQ(unsuited(few_short), "");
  EXPECT_GT(workspaces(few_short).second, gib / 2);
  EXPECT_LT(workspaces(few_short).second, gib * 5 / 4);
}

TEST(AttentionLibrary, is_spared_segments_in_many_slices) {
  EXPECT_NE(unsuited(many).find("2048 segments"), std::string::npos) << unsuited(many);
  EXPECT_EQ(workspaces(many).first, 0u);
  EXPECT_LT(workspaces(many).second, gib / 64);
}

TEST(AttentionLibrary, is_spared_segments_whose_workspace_is_many_times_the_tensors) {
  for (const Case& c : {lengthy, one_lengthy}) {
    EXPECT_NE(unsuited(c).find("32768 queries"), std::string::npos) << unsuited(c);
    EXPECT_EQ(workspaces(c).first, 0u);
    EXPECT_LT(workspaces(c).second, gib / 64);
  }
}

TEST(AttentionLibrary, computes_long_sequences_that_are_no_segments) {
  Case c = lengthy;
  c.segments = 0;
  EXPECT_EQ(unsuited(c), "");
}

TEST(AttentionLibrary, is_spared_what_it_computes_otherwise) {
  EXPECT_NE(unsuited(few_short, DType::f32), "");
  AttentionShape dropped = few_short.shape();
  dropped.dropout = 0.1f;
  EXPECT_NE(library_unsuited(dropped, DType::bf16, 1024, 1024, 0), "");
}

}  // namespace
}  // namespace muster::cuda
