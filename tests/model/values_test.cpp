// One step of each family against PyTorch: loss and every gradient, in f32 and in bf16.

#include <cstring>
#include <gtest/gtest.h>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "core/memory.hpp"
#include "core/parallel.hpp"
#include "core/stream.hpp"
#include "model/executor.hpp"
#include "model/families/language_model.hpp"
#include "tests/reference/pytorch_case.hpp"

namespace muster {
namespace {

using pytorch::Case;
using pytorch::distance;
using pytorch::norm;

constexpr double loss_tolerance = 1e-5;      // relative
constexpr double gradient_tolerance = 1e-4;  // of the tensor's norm,
constexpr double negligible = 1e-6;          // or of this share of the norm of all gradients
constexpr double autocast_factor = 1.5;      // our bf16 error against f64, by that of PyTorch's autocast

// Parameters, gradients and the arena of one plan, with a case's initial weights.
class Model {
 public:
  Model(const Case& reference, std::int64_t sequences, Precision precision, Recompute recompute)
      : reference_(reference),
        sequences_(sequences),
        plan_(make_plan(
            LanguageModel(reference.model)
                .training({sequences, reference.sequence, sequences * reference.starts_per_sequence()},
                          precision, recompute),
            cpu_kernels(), thread_count())),
        executor_(plan_, backend_of(*cpu_device())),
        arena_(account_, MemoryKind::activations, plan_.arena_bytes),
        master_(account_, MemoryKind::parameters, elements() * sizeof(float)),
        compute_(account_, MemoryKind::compute_weights, elements() * sizeof(bf16)),
        gradient_(account_, MemoryKind::gradients, elements() * sizeof(float)) {
    std::map<std::string, std::size_t> by_name;
    for (std::size_t p = 0; p < plan_.graph.parameters.size(); ++p) by_name[value_of(p).name] = p;
    EXPECT_EQ(by_name.size(), reference.parameters.size());
    for (const pytorch::Parameter& parameter : reference.parameters) {
      const auto found = by_name.find(parameter.name);
      if (found == by_name.end()) {
        ADD_FAILURE() << "no parameter " << parameter.name;
        continue;
      }
      EXPECT_EQ(value_of(found->second).type.shape, parameter.shape) << parameter.name;
      const std::vector<float> values = reference.initial(parameter);
      std::copy(values.begin(), values.end(), master_.as<float>().subspan(offset(found->second)).begin());
    }
    cpu_flat_kernels().to_bf16(nullptr, master_.as<float>().first(elements()),
                               compute_.as<bf16>().first(elements()));
  }

  // The mean loss of the first global batch; its gradients are left for gradient().
  double run() {
    InlineStream stream;
    const Bindings bindings{arena_.data(), master_.data(), compute_.data(), gradient_.data(), nullptr};
    double sum = 0;
    StepScalars scalars;
    for (std::int64_t first = 0; first < reference_.batch; first += sequences_) {
      const auto inputs = reference_.micro_batch(0, first, sequences_);
      fill(executor_.view("tokens", bindings), inputs.tokens);
      fill(executor_.view("targets", bindings), inputs.targets);
      fill(executor_.view("positions", bindings), inputs.positions);
      if (reference_.documents) fill(executor_.view("document_starts", bindings), inputs.document_starts);
      scalars.first_slot = static_cast<std::uint32_t>(first);
      executor_.run(stream, bindings, scalars, {.accumulate = first > 0});
      stream.synchronize();
      sum += *executor_.view("loss", bindings).as<double>();
    }
    return sum / static_cast<double>(reference_.valid_targets(0));
  }

  std::map<std::string, std::vector<float>> gradients() const {
    std::map<std::string, std::vector<float>> result;
    const auto valid = static_cast<float>(reference_.valid_targets(0));
    for (std::size_t p = 0; p < plan_.graph.parameters.size(); ++p) {
      const auto count = static_cast<std::size_t>(value_of(p).type.elements());
      const auto sums = gradient_.as<float>().subspan(offset(p), count);
      auto& mean = result[value_of(p).name];
      for (const float sum : sums) mean.push_back(sum / valid);
    }
    return result;
  }

 private:
  std::size_t elements() const { return static_cast<std::size_t>(plan_.graph.space->elements()); }
  std::size_t offset(std::size_t p) const { return static_cast<std::size_t>((*plan_.graph.space)[p].offset); }
  const Value& value_of(std::size_t p) const { return plan_.graph[plan_.graph.parameters[p].value]; }
  static void fill(const TensorView& view, const std::vector<std::int32_t>& values) {
    ASSERT_EQ(view.elements(), static_cast<std::int64_t>(values.size()));
    std::memcpy(view.data, values.data(), values.size() * sizeof(std::int32_t));
  }

  const Case& reference_;
  std::int64_t sequences_;
  Plan plan_;
  Executor executor_;
  MemoryAccount account_;
  Buffer arena_, master_, compute_, gradient_;
};

double norm_of_all(const Case& reference) {
  double squares = 0;
  for (const auto& parameter : reference.parameters)
    squares += std::pow(norm(reference.read<float>("gradient/" + parameter.name)), 2);
  return std::sqrt(squares);
}

// The tensor that comes nearest to its tolerance, or passes it.
struct Worst {
  double share = 0;
  std::string name;

  void see(double candidate, const std::string& of) {
    if (!(candidate <= share)) share = candidate, name = of;  // also when it is not a number
  }
};

class ReferenceValues : public testing::TestWithParam<std::string> {
 protected:
  void expect_pytorchs_values(std::int64_t sequences, Recompute recompute) const {
    const Case reference(GetParam());
    Model model(reference, sequences, Precision::f32, recompute);
    const double loss = model.run(), expected = reference.read<double>("loss").front();
    EXPECT_NEAR(loss, expected, loss_tolerance * expected);
    const double all = norm_of_all(reference);
    const auto gradients = model.gradients();
    Worst worst;
    for (const auto& parameter : reference.parameters) {
      const auto exact = reference.read<float>("gradient/" + parameter.name);
      const double error = distance(gradients.at(parameter.name), exact);
      worst.see(error / std::max(norm(exact), negligible * all), parameter.name);
    }
    EXPECT_LE(worst.share, gradient_tolerance) << worst.name;
    std::cout << "loss off by " << std::abs(loss / expected - 1) << ", gradients by at most " << worst.share
              << " (" << worst.name << ")\n";
  }
};

TEST_P(ReferenceValues, loss_and_gradients_in_f32_are_those_of_pytorch) {
  expect_pytorchs_values(1, Recompute::none);
}

TEST_P(ReferenceValues, two_sequences_at_once_give_the_same_as_one_by_one) {
  expect_pytorchs_values(2, Recompute::none);
}

TEST_P(ReferenceValues, recomputing_blocks_gives_the_same) { expect_pytorchs_values(1, Recompute::block); }

TEST_P(ReferenceValues, gradients_in_bf16_err_no_more_than_pytorchs_autocast) {
  const Case reference(GetParam());
  Model model(reference, 1, Precision::bf16, Recompute::none);
  model.run();
  const auto gradients = model.gradients();
  Worst worst;
  for (const auto& parameter : reference.parameters) {
    const double error =
        distance(gradients.at(parameter.name), reference.read<float>("gradient/" + parameter.name));
    worst.see(error / reference.read<double>("autocast_error/" + parameter.name).front(), parameter.name);
  }
  EXPECT_LE(worst.share, autocast_factor) << worst.name;
  std::cout << "errors at most " << worst.share << " times those of autocast (" << worst.name << ")\n";
}

INSTANTIATE_TEST_SUITE_P(Pytorch, ReferenceValues, testing::ValuesIn(pytorch::cases),
                         [](const auto& test) { return pytorch::test_name(test.param); });

}  // namespace
}  // namespace muster
