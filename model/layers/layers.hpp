// The layers that the families are made of, each a few calls of the builder. Residual connections are pairs
// (stream, branch): the branch is added by the norm that comes next (ops/norm.hpp).
#pragma once

#include <string_view>

#include "model/config.hpp"
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

// Adds the branch to the stream, then normalises: returns the normalised rows, and the new stream in
// `residual`.
ValueId residual_norm(Builder& b, Residual& residual, NormKind kind, double epsilon, std::string_view name);

ValueId dropout(Builder& b, ValueId x, double probability, std::int64_t rows_per_sample,
                std::string_view name);

// Self-attention with packed queries, keys and values: qkv -> (rope) -> attention -> projection.
ValueId self_attention(Builder& b, ValueId x, const ModelConfig& config, const Sequences& sequences);

// gpt: down(gelu(up(x))); llama: down(swiglu(gate_up(x))).
ValueId feed_forward(Builder& b, ValueId x, const ModelConfig& config);

}  // namespace muster
