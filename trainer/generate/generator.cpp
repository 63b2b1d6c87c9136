#include "trainer/generate/generator.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>
#include <string_view>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "model/families/family.hpp"
#include "trainer/checkpoint/folder.hpp"
#include "trainer/run_folder.hpp"

namespace muster {
namespace {

// Long enough for the speed of matrix products, short enough to waste little on a short prompt.
constexpr std::int64_t longest_piece = 64;

// The cache has room for the unused rows of the last piece, which nothing reads.
Plan plan_of(const Config& config, std::int64_t length, std::int64_t piece, const Machine& machine) {
  const std::unique_ptr<Model> model = make_model(config.model);
  return make_plan(model->generation({1, length, 0}, config.run.precision, config.model.context + piece - 1),
                   machine.backend().kernels, thread_count());
}

MemoryByKind memory_or_refuse(const Config& config, const Plan& plan, std::uint64_t arena_bytes,
                              const Machine& machine) {
  MemoryByKind memory = TrainedModel::memory(config, *plan.graph.space, arena_bytes);
  memory[static_cast<std::size_t>(MemoryKind::cache)] = Buffer::counted(plan.state_bytes);
  refuse_if_too_large(demand_on(machine.device(), memory, 1, 1),
                      [] { return "let a machine with more memory write"; });
  return memory;
}

std::optional<std::int64_t> newest_checkpoint(const Config& config) {
  return newest_complete(RunFolder(config.run.dir).checkpoints(), Trust::used,
                         [](const std::string& line) { fmt::print(stderr, "{}\n", line); });
}

}  // namespace

Generator::Generator(const Config& config, std::optional<std::int64_t> checkpoint, Machine& machine)
    : config_(config),
      machine_(machine),
      piece_(std::min(config.model.context, longest_piece)),
      decode_(plan_of(config, 1, piece_, machine)),
      prompt_(plan_of(config, piece_, piece_, machine)),
      arena_bytes_(std::max(decode_.arena_bytes, prompt_.arena_bytes)),
      memory_(memory_or_refuse(config, decode_, arena_bytes_, machine)),
      model_(load_asked_or_newest(
          checkpoint, [&] { return newest_checkpoint(config); },
          [&](std::optional<std::int64_t> step) {
            return TrainedModel(config, step, *decode_.graph.space, arena_bytes_, machine);
          })),
      cache_(machine.take(MemoryKind::cache, decode_.state_bytes)),
      decoder_(decode_, machine.backend()),
      prompter_(prompt_, machine.backend()) {}

void Generator::run(const Executor& executor, std::span<const std::int32_t> tokens, std::int64_t cached) {
  Stream& stream = machine_.stream();
  Bindings bindings = model_.bindings();
  bindings.state = cache_.data();
  const auto rows = static_cast<std::size_t>(executor.view("tokens", bindings).elements());
  std::vector<std::int32_t> padded(tokens.begin(), tokens.end()), positions(rows);
  padded.resize(rows);
  std::iota(positions.begin(), positions.end(), static_cast<std::int32_t>(cached));
  const auto last_position = static_cast<std::int32_t>(config_.model.context - 1);
  for (std::int32_t& position : positions) position = std::min(position, last_position);
  const std::int32_t last = static_cast<std::int32_t>(tokens.size()) - 1;
  const auto fill = [&](std::string_view name, std::span<const std::int32_t> values) {
    const TensorView to = executor.view(name, bindings);
    check(static_cast<std::size_t>(to.elements()) == values.size(), "tokens fit the plan's inputs");
    stream.copy(to.data, values.data(), values.size_bytes());
  };
  fill("tokens", padded);
  fill("positions", positions);
  fill("last", std::span(&last, 1));
  StepScalars scalars;
  scalars.kv_length = static_cast<std::uint32_t>(cached);
  executor.run(stream, bindings, scalars);

  const TensorView result = executor.view("logits", bindings);
  read_.resize(result.type->bytes());
  stream.copy(read_.data(), result.data, read_.size());
  stream.synchronize();
  logits_.resize(static_cast<std::size_t>(config_.model.vocabulary));
  for (std::size_t v = 0; v < logits_.size(); ++v)
    logits_[v] = result.dtype() == DType::bf16
                     ? static_cast<float>(reinterpret_cast<const bf16*>(read_.data())[v])
                     : reinterpret_cast<const float*>(read_.data())[v];
}

std::span<const float> Generator::logits(std::span<const std::int32_t> tokens, std::int64_t cached) {
  check(!tokens.empty() && cached + std::ssize(tokens) <= config_.model.context, "tokens within the context");
  while (!tokens.empty()) {
    const std::size_t count = std::min(tokens.size(), static_cast<std::size_t>(piece_));
    run(count == 1 ? decoder_ : prompter_, tokens.first(count), cached);
    tokens = tokens.subspan(count);
    cached += static_cast<std::int64_t>(count);
  }
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
    if (!std::ranges::all_of(next, [](float logit) { return std::isfinite(logit); }))
      throw UserError(
          "{} gives no token a chance: its logits are not finite, the run had diverged; choose an earlier "
          "one "
          "by --checkpoint, muster checkpoint list {} shows which there are",
          model_.path(), config_.run.dir);
    cached += fresh.size();
    tokens.push_back(sample(next, sampling, static_cast<std::uint32_t>(draw)));
    if (!token(tokens.back())) return;
  }
}

}  // namespace muster
