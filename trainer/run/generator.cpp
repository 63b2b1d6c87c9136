#include "trainer/run/generator.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "model/families/language_model.hpp"

namespace muster {
namespace {

Plan plan_of(const Config& config, std::int64_t length) {
  return make_plan(
      language_model_generation(config.model, {1, length, 0}, config.run.precision, config.model.context),
      cpu_kernels(), thread_count());
}

void fill(const TensorView& to, std::span<const std::int32_t> values) {
  std::memcpy(to.data, values.data(), values.size_bytes());
}

}  // namespace

Generator::Generator(const Config& config, std::optional<std::int64_t> checkpoint, MemoryAccount& account)
    : config_(config),
      account_(account),
      decode_(plan_of(config, 1)),
      longest_(plan_of(config, config.model.context)),
      model_(config, checkpoint, decode_, std::max(decode_.arena_bytes, longest_.arena_bytes), account),
      cache_(account, MemoryKind::cache, decode_.state_bytes) {}

const Plan& Generator::plan_for(std::int64_t length) {
  if (length == 1) return decode_;
  if (length == config_.model.context) return longest_;
  prompt_.emplace(plan_of(config_, length));
  check(prompt_->arena_bytes <= std::max(decode_.arena_bytes, longest_.arena_bytes),
        "a prompt fits the arena");
  return *prompt_;
}

std::span<const float> Generator::logits(std::span<const std::int32_t> tokens, std::int64_t cached) {
  const Plan& plan = plan_for(static_cast<std::int64_t>(tokens.size()));
  const Executor executor(plan);
  Bindings bindings = model_.bindings();
  bindings.state = cache_.data();
  std::vector<std::int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), static_cast<std::int32_t>(cached));
  fill(executor.view("tokens", bindings), tokens);
  fill(executor.view("positions", bindings), positions);
  const std::int32_t last = static_cast<std::int32_t>(tokens.size()) - 1;
  fill(executor.view("last", bindings), std::span(&last, 1));
  StepScalars scalars;
  scalars.kv_length = static_cast<std::uint32_t>(cached);
  InlineStream stream;
  executor.run(stream, bindings, scalars);

  const TensorView result = executor.view("logits", bindings);
  logits_.resize(static_cast<std::size_t>(config_.model.vocabulary));
  for (std::size_t v = 0; v < logits_.size(); ++v)
    logits_[v] =
        result.dtype() == DType::bf16 ? static_cast<float>(result.as<bf16>()[v]) : result.as<float>()[v];
  return logits_;
}

void Generator::generate(std::vector<std::int32_t>& tokens, std::int64_t count, const Sampling& sampling,
                         const std::function<bool(std::int32_t)>& token) {
  check(!tokens.empty(), "generation starts from at least one token");
  const auto context = static_cast<std::size_t>(config_.model.context);
  std::size_t cached = 0, begin = tokens.size() > context ? tokens.size() - context : 0;
  for (std::int64_t draw = 0; draw < count; ++draw) {
    if (tokens.size() - begin > context) {
      begin = tokens.size() - std::max<std::size_t>(1, context / 2);
      cached = 0;
    }
    const std::span<const std::int32_t> fresh = std::span(tokens).subspan(begin + cached);
    const std::span<const float> next = logits(fresh, static_cast<std::int64_t>(cached));
    cached += fresh.size();
    tokens.push_back(sample(next, sampling, static_cast<std::uint32_t>(draw)));
    if (!token(tokens.back())) return;
  }
}

}  // namespace muster
