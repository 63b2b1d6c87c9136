// What the tests of graphs and plans share: small models of both families, and a way to run any plan of them
// on memory full of NaNs, so that a kernel which reads what nobody wrote is seen in the results.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/memory.hpp"
#include "core/philox.hpp"
#include "model/executor.hpp"
#include "model/families/language_model.hpp"
#include "model/ops/flat.hpp"

namespace muster::small_model {

// Grouped queries, dropout, biases and a padded vocabulary: everything that a family has.
inline ModelConfig config(Family family, bool tied = true) {
  ModelConfig config;
  config.family = family;
  config.layers = 3;
  config.width = 48;
  config.heads = 4;
  config.kv_heads = family == Family::llama ? 2 : 4;
  config.feed_forward = 112;
  config.vocabulary = 131;
  config.context = 40;
  config.dropout = 0.1;
  config.tied = tied;
  config.qkv_bias = true;
  return config;
}

inline constexpr LanguageModelShape shape{.batch = 2, .sequence = 24, .document_starts = 9};

// A number below `bound` for each element of the tensor `name`.
inline std::vector<std::int32_t> integers(std::string_view name, std::size_t count, std::int64_t bound) {
  std::vector<std::int32_t> values(count);
  for (std::size_t i = 0; i < count; ++i)
    values[i] = static_cast<std::int32_t>(philox({static_cast<std::uint32_t>(i), 0, 0, fnv1a(name)}, 7)[0] %
                                          static_cast<std::uint32_t>(bound));
  return values;
}

// The memory that a plan runs on. Weights depend on names only, so that plans of one model compute with the
// same ones.
class Memory {
 public:
  explicit Memory(const Plan& plan)
      : plan_(plan),
        executor_(plan, backend_of(*cpu_device())),
        arena_(account_, MemoryKind::activations, plan.arena_bytes),
        master_(account_, MemoryKind::parameters, elements() * 4),
        compute_(account_, MemoryKind::compute_weights, elements() * 2),
        gradient_(account_, MemoryKind::gradients, elements() * 4),
        state_(account_, MemoryKind::cache, plan.state_bytes) {
    for (const Buffer* buffer : {&arena_, &gradient_, &state_})
      if (!buffer->empty()) std::memset(buffer->data(), 0xff, buffer->bytes());
    for (std::size_t p = 0; p < plan.graph.parameters.size(); ++p) {
      const Parameter& parameter = (*plan.graph.space)[p];
      const std::span<float> values = weights(p);
      fill_normal(values, 0, 0.1f, fnv1a(parameter.name), 3);
      if (parameter.init.kind == Init::Kind::constant)
        for (float& value : values) value += parameter.init.scale;
    }
    refresh();
  }

  // Fills the inputs by name; an input that nobody fills is full of NaNs.
  void fill(std::string_view name, std::span<const std::int32_t> values) {
    const TensorView to = executor_.view(name, bindings());
    check(static_cast<std::size_t>(to.elements()) == values.size(), "as many values as the input has");
    std::memcpy(to.data, values.data(), values.size_bytes());
  }

  // Fills the inputs of a language model in training: documents, ignored targets.
  void fill_training(const ModelConfig& model) {
    const auto rows = static_cast<std::size_t>(shape.batch * shape.sequence);
    fill("tokens", integers("tokens", rows, model.vocabulary));
    std::vector<std::int32_t> targets = integers("targets", rows, model.vocabulary), positions(rows);
    for (std::size_t i = 0; i < rows; i += 3) targets[i] = -1;
    std::vector<std::int32_t> starts = {0, 5, 17, 24, 31, 48, 48, 48, 48};
    for (std::size_t i = 0, document = 0; i < rows; ++i) {
      if (static_cast<std::int32_t>(i) == starts[document + 1]) ++document;
      positions[i] = static_cast<std::int32_t>(i) - starts[document];
    }
    fill("targets", targets);
    fill("positions", positions);
    fill("document_starts", starts);
  }

  void run(const StepScalars& scalars = {}, bool accumulate = false) {
    executor_.run(stream_, bindings(), scalars, {.accumulate = accumulate});
  }

  // The compute copies follow the masters.
  void refresh() { cpu_flat_kernels().to_bf16(nullptr, master_.as<float>(), compute_.as<bf16>()); }

  std::span<float> weights(std::size_t parameter) { return tensor(master_, parameter); }
  std::span<float> gradient(std::size_t parameter) { return tensor(gradient_, parameter); }
  TensorView view(std::string_view name) const { return executor_.view(name, bindings()); }
  double loss() const { return *view("loss").as<double>(); }

  // Loss and gradients by name, as bytes: what must not change by a bit.
  std::map<std::string, std::vector<std::byte>> outcome() {
    std::map<std::string, std::vector<std::byte>> result;
    const TensorView loss_view = view("loss");
    result["loss"].assign(loss_view.data, loss_view.data + loss_view.type->bytes());
    for (std::size_t p = 0; p < plan_.graph.parameters.size(); ++p) {
      const auto bytes = std::as_bytes(gradient(p));
      result[(*plan_.graph.space)[p].name].assign(bytes.begin(), bytes.end());
    }
    return result;
  }

  Bindings bindings() const {
    return {arena_.data(), master_.data(), compute_.data(), gradient_.data(), state_.data()};
  }

 private:
  std::size_t elements() const { return static_cast<std::size_t>(plan_.graph.space->elements()); }
  std::span<float> tensor(const Buffer& space, std::size_t p) const {
    const Parameter& parameter = (*plan_.graph.space)[p];
    return space.as<float>().subspan(static_cast<std::size_t>(parameter.offset),
                                     static_cast<std::size_t>(parameter.elements()));
  }

  const Plan& plan_;
  Executor executor_;
  InlineStream stream_;
  MemoryAccount account_;
  Buffer arena_, master_, compute_, gradient_, state_;
};

}  // namespace muster::small_model
