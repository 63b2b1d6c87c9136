// Twenty training steps of two ranks against PyTorch: losses, gradient norms, and the parameters after them.

#include <algorithm>
#include <gtest/gtest.h>
#include <iostream>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "comm/threads/ranks.hpp"
#include "core/parallel.hpp"
#include "data/prefetch.hpp"
#include "tests/reference/pytorch_case.hpp"
#include "tests/trainer/small_run.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/step/training_step.hpp"

namespace muster {
namespace {

using pytorch::Case;

constexpr int ranks = 2;
constexpr double loss_tolerance = 1e-5;    // relative, at each step
constexpr double norm_tolerance = 1e-4;    // relative, as for each gradient
constexpr double update_tolerance = 1e-3;  // of the norm of a tensor's update over all steps

Config config_of(const Case& reference, Reduction reduction) {
  Config config;
  config.model = reference.model;
  config.data.documents = reference.documents;
  config.train.steps = reference.steps;
  config.train.batch = reference.batch;
  config.train.sequence = reference.sequence;
  config.train.shards = reference.batch;
  config.train.micro_batch = 1;
  config.train.reduction = reduction;
  config.optimizer.lr = reference.optimizer("lr");
  config.optimizer.betas = {reference.beta(0), reference.beta(1)};
  config.optimizer.epsilon = reference.optimizer("epsilon");
  config.optimizer.weight_decay = reference.optimizer("weight_decay");
  config.optimizer.clip = reference.optimizer("clip");
  return config;
}

// A slot is a sequence of the case: step x batch + its place in the batch.
void fill(const Case& reference, std::int64_t slot, std::int64_t count, Batch& batch) {
  const auto inputs = reference.micro_batch(slot / reference.batch, slot % reference.batch, count);
  std::ranges::copy(inputs.tokens, batch.i32("tokens").begin());
  std::ranges::copy(inputs.targets, batch.i32("targets").begin());
  std::ranges::copy(inputs.positions, batch.i32("positions").begin());
  if (batch.has("document_starts")) {
    std::ranges::fill(batch.i32("document_starts"), static_cast<std::int32_t>(inputs.tokens.size()));
    std::ranges::copy(inputs.document_starts, batch.i32("document_starts").begin());
  }
  if (batch.has("token_types")) std::ranges::fill(batch.i32("token_types"), 0);
  batch.valid_targets =
      std::ranges::count_if(inputs.targets, [](std::int32_t target) { return target >= 0; });
  batch.merged_documents = 0;
}

// A parameter where the trainer keeps it.
std::span<float> tensor(const RunPlan& plan, const ModelState& state, std::size_t index) {
  const Parameter& parameter = plan.parameters()[index];
  return state.master.as<float>().subspan(static_cast<std::size_t>(parameter.offset),
                                          static_cast<std::size_t>(parameter.elements()));
}

// All elements but the biases of keys. They shift every score of a query alike, so without rotation their
// gradient is zero in theory (with it, nearly zero in slow pairs), and AdamW follows the sign of rounding
// noise.
std::vector<float> counted(const Case& reference, const std::string& name, std::span<const float> values) {
  std::vector<float> result(values.begin(), values.end());
  if (!name.ends_with("attention.qkv.bias")) return result;
  const std::int64_t size = reference.model.width / reference.model.heads;
  const auto keys = result.begin() + reference.model.heads * size;
  result.erase(keys, keys + reference.model.kv_heads * size);
  return result;
}

// The stand-in of GPUs is too slow for all steps of all models: there one step is compared, and no parameter.
#ifdef MUSTER_CUDA_ON_HOST
constexpr bool on_stand_in = true;
#else
constexpr bool on_stand_in = false;
#endif

class TrainingValues : public testing::TestWithParam<std::tuple<std::string, Reduction, DeviceKind>> {};

TEST_P(TrainingValues, steps_of_two_ranks_are_those_of_pytorch) {
  const auto& [name, reduction, device] = GetParam();
  const bool cuda = device == DeviceKind::cuda;
  if (cuda && cuda_device_count() == 0) GTEST_SKIP() << "no GPU";
  const Case reference(name);
  Config config = config_of(reference, reduction);
  const bool whole = !cuda || !on_stand_in;
  if (!whole) config.train.steps = 1;
  const auto losses = reference.read<double>("loss"), norms = reference.read<double>("gradient_norm");

  run_ranks(ranks, [&](Communicator& comm) {
    set_thread_count(1);
    MemoryAccount account;
    Machine machine(cuda ? cuda_device(comm.rank() % cuda_device_count()) : cpu_device(), account);
    const std::unique_ptr<Communicator> of_devices =
        cuda ? small_run::join_devices(comm, machine, account) : nullptr;
    const RunPlan plan =
        make_run_plan(config, ranks, comm.rank(), 1, 0, device, of_devices && of_devices->sums());
    ModelState state(plan, config, machine);
    std::map<std::string, std::size_t> index;
    for (std::size_t p = 0; p < plan.parameters().size(); ++p) index[plan.parameters()[p].name] = p;
    Transfer transfer(machine);
    for (const pytorch::Parameter& parameter : reference.parameters)
      transfer.upload(tensor(plan, state, index.at(parameter.name)),
                      [values = reference.initial(parameter)](std::int64_t begin, std::span<float> piece) {
                        std::copy_n(values.begin() + begin, piece.size(), piece.begin());
                      });

    Prefetch prefetch(
        micro_batch_fields(config),
        [&](std::int64_t slot, std::int64_t count, Batch& batch) { fill(reference, slot, count, batch); },
        account, prefetch_depth, config.train.micro_batch, machine.device().staging());
    Position position;
    TrainingStep training(config, plan, state, {comm, of_devices ? *of_devices : comm}, position);
    // Ranks that are threads share what CUDA keeps for a process: memory that one gives back waits for all streams of its
    // GPU, those of other ranks too. So nobody trains before everybody has what it needs.
    comm.barrier("ready").wait();
    for (std::int64_t step = 0; step < config.train.steps; ++step) {
      training.request(prefetch, step);
      training.start(prefetch, config.optimizer.lr);
      const StepResult result = training.finish(position);
      const auto s = static_cast<std::size_t>(step);
      EXPECT_NEAR(result.loss, losses[s], loss_tolerance * losses[s]) << "step " << step;
      EXPECT_NEAR(result.grad_norm, norms[s], norm_tolerance * norms[s]) << "step " << step;
      EXPECT_EQ(result.targets, reference.valid_targets(step));
      EXPECT_TRUE(result.clipped) << "step " << step;
    }

    training.settle();
    machine.stream().synchronize();
    if (!whole) return;
    double worst = 0;
    for (const pytorch::Parameter& parameter : reference.parameters) {
      const auto select = [&](std::span<const float> values) {
        return counted(reference, parameter.name, values);
      };
      const auto expected = select(reference.read<float>("parameter/" + parameter.name));
      const auto before = select(reference.initial(parameter));
      std::vector<float> all;
      transfer.download(tensor(plan, state, index.at(parameter.name)),
                        [&](std::int64_t, std::span<const float> piece) {
                          all.insert(all.end(), piece.begin(), piece.end());
                        });
      const auto after = select(all);
      const double error = pytorch::distance(after, expected) / pytorch::distance(expected, before);
      EXPECT_LE(error, update_tolerance) << parameter.name;
      worst = std::max(worst, error);
    }
    if (comm.rank() == 0) std::cout << "updates off by at most " << worst << "\n";
  });
}

INSTANTIATE_TEST_SUITE_P(Pytorch, TrainingValues,
                         testing::Combine(testing::ValuesIn(pytorch::cases),
                                          testing::Values(Reduction::fast, Reduction::invariant),
                                          testing::Values(DeviceKind::cpu, DeviceKind::cuda)),
                         [](const auto& test) {
                           return pytorch::test_name(std::get<0>(test.param)) + "_" +
                                  std::string(spelling(std::get<1>(test.param))) +
                                  (std::get<2>(test.param) == DeviceKind::cuda ? "_cuda" : "_cpu");
                         });

}  // namespace
}  // namespace muster
