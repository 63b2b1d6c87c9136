// The layers that the families are made of, each a few calls of the builder. Residual connections are pairs
// (stream, branch): the branch is added by the norm that comes next (ops/norm.hpp).
#pragma once

#include <optional>
#include <string_view>

#include "model/graph/builder.hpp"
#include "model/ops/linear.hpp"
#include "model/ops/norm.hpp"

namespace muster {

// The residual stream, and what the layer before wants to add to it.
struct Residual {
  ValueId stream;
  ValueId branch;  // may be empty
};

// How the rows of a micro-batch lie and what attention may see.
struct Sequences {
  std::int64_t batch = 1;
  std::int64_t length = 1;
  ValueId positions;        // i32 [B T]
  ValueId document_starts;  // i32, may be empty: attention.hpp
  ValueId cache;            // KV cache state of this layer, may be empty: generation
};

struct LinearOptions {
  bool bias = false;
  Activation activation = Activation::none;
  float init_scale = 0.02f;
};

// x [N, K] -> [N, outputs]; parameters NAME.weight and NAME.bias.
ValueId linear(Builder& b, ValueId x, std::int64_t outputs, LinearOptions options, std::string_view name);

// Adds the branch to the stream, then normalises: returns the normalised rows, of type `output` or else of the compute
// type, and the new stream in `residual`.
ValueId residual_norm(Builder& b, Residual& residual, NormKind kind, double epsilon, std::string_view name,
                      std::optional<DType> output = {});

ValueId dropout(Builder& b, ValueId x, double probability, std::int64_t rows_per_sample,
                std::string_view name);

// Projections into the residual stream start smaller, by the number of branches that it sums (Radford et al.
// 2019).
float residual_init(std::int64_t layers);

struct AttentionOptions {
  int heads = 1;
  int kv_heads = 1;
  bool causal = true;
  double dropout = 0;  // of probabilities, and of what is projected
  bool qkv_bias = false;
  bool bias = false;         // of the projection
  double rope_base = 0;      // 0: no rotary positions
  float init_scale = 0.02f;  // of the projection
};
// Self-attention with packed queries, keys and values: qkv -> (rope) -> attention -> projection.
ValueId self_attention(Builder& b, ValueId x, const AttentionOptions& options, const Sequences& sequences);

enum class FeedForward : std::uint8_t {
  gelu,    // down(gelu(up(x)))
  swiglu,  // down(swiglu(gate_up(x)))
};
struct FeedForwardOptions {
  FeedForward kind = FeedForward::gelu;
  std::int64_t hidden = 0;
  bool bias = false;
  float init_scale = 0.02f;  // of the projection down
};
ValueId feed_forward(Builder& b, ValueId x, const FeedForwardOptions& options);

}  // namespace muster
