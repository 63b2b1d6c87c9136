// Holds every kernel of every backend to every row of the table.
#include "tests/model/op_table.hpp"

#include <cmath>
#include <gtest/gtest.h>
#include <set>

#include "model/ops/activation.hpp"
#include "model/ops/addition.hpp"
#include "model/ops/norm.hpp"
#ifdef MUSTER_CUDA_ON_HOST
#include "tests/cuda_on_host/kernel_threads.hpp"
#endif

namespace muster::testing {
namespace {

const std::vector<Row>& table() {
  static const std::vector<Row> rows = [] {
    std::vector<Row> all;
    for (const auto& family : {norm_rows, elementwise_rows, embedding_rows, linear_rows, attention_rows})
      for (Row& row : family()) all.push_back(std::move(row));
    return all;
  }();
  return rows;
}

std::vector<TestTensor> inputs_of(const Row& row) {
  std::vector<TestTensor> inputs;
  for (std::size_t i = 0; i < row.inputs.size(); ++i)
    inputs.push_back(row.inputs[i].shape.empty() ? TestTensor() : TestTensor(row.inputs[i], row.values[i]));
  return inputs;
}

std::vector<TestTensor> run(TestDevice& device, const Row& row, const RunOptions& options) {
  std::vector<TestTensor> inputs = inputs_of(row);
  std::vector<TestTensor> outputs = run_op(device, *row.op, inputs, options, row.outputs);
  if (options.changed_input >= 0) outputs.push_back(inputs[static_cast<std::size_t>(options.changed_input)]);
  return outputs;
}

std::size_t outputs_of(const Row& row) {
  return row.outputs ? row.outputs->size() : row.op->infer(row.inputs).size();
}

bool accumulates(const Row& row) {
  for (std::size_t i = 0; i < outputs_of(row); ++i)
    if (row.op->accumulates(static_cast<int>(i))) return true;
  return false;
}

// The outputs that may take the memory of an input that is there.
std::vector<int> in_place_outputs(const Row& row) {
  std::vector<int> outputs;
  for (int i = 0; i < static_cast<int>(outputs_of(row)); ++i) {
    const int input = row.op->may_overwrite(i);
    if (input >= 0 && !row.inputs[static_cast<std::size_t>(input)].shape.empty()) outputs.push_back(i);
  }
  return outputs;
}

double unit_roundoff(DType type) {
  return type == DType::bf16 ? 0x1p-8 : type == DType::f32 ? 0x1p-24 : 0x1p-53;
}

void expect_close(const TestTensor& got, const Values& want, Roundings roundings) {
  const Values values = got.values();
  ASSERT_EQ(values.size(), want.size());
  const DType type = got.type().dtype;
  const bool bits = roundings.f32 < 0;
  double largest = 0;
  for (const double value : want)
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  const double common = bits ? 0 : (roundings.f32 * 0x1p-24 + roundings.bf16 * 0x1p-8) * largest;
  double excess = 0;
  std::size_t where = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (std::isinf(want[i]) && values[i] == want[i]) continue;
    const double error = std::abs(values[i] - (bits ? reference::rounded(want[i], type) : want[i]));
    const double beyond = error - (bits ? 0 : common + unit_roundoff(type) * std::abs(want[i]));
    if (beyond <= excess) continue;  // a NaN goes on
    excess = beyond;
    where = i;
    if (std::isnan(beyond)) break;
  }
  EXPECT_EQ(excess, 0) << "beyond the tolerance, in element " << where << " of " << want.size() << ": "
                       << values[where] << " instead of " << want[where] << ", largest " << largest;
}

struct KernelName {
  TestBackend device;
  std::string_view op;
};

std::vector<KernelName> kernels_of_all_backends() {
  std::vector<KernelName> names;
  for (const TestBackend& backend : compiled_backends())
    for (const auto& [op, kernel] : backend.kernels()) names.push_back({backend, op});
  return names;
}

class OpTable : public ::testing::TestWithParam<KernelName> {
 protected:
  void SetUp() override {
    if (!has_device(GetParam().device)) GTEST_SKIP() << "no GPU is visible";
    device_.emplace(GetParam().device);
  }

  template <class Body>
  void for_rows(Body&& body) {
    for (const Row& row : table()) {
      if (row.op->name() != GetParam().op) continue;
      SCOPED_TRACE(describe(row));
      body(row);
    }
  }
  std::vector<TestTensor> run(const Row& row, const RunOptions& options) {
    return testing::run(*device_, row, options);
  }
  // As run, the threads of the device scheduled in another way for each `schedule` of 0, 1, 2, ...
  std::vector<TestTensor> run_scheduled(const Row& row, int schedule) {
    RunOptions options = row.options;
    if (GetParam().device.kind == DeviceKind::cpu) options.threads = 1 + schedule;
#ifdef MUSTER_CUDA_ON_HOST
    cuda_on_host::shuffle_threads(static_cast<std::uint64_t>(schedule));
#endif
    return run(row, options);
  }

 private:
  std::optional<TestDevice> device_;
};

TEST(OpRows, are_there_for_every_kernel_in_f32_and_bf16) {
  for (const KernelName& kernel : kernels_of_all_backends()) {
    std::set<DType> types;
    for (const Row& row : table())
      for (const TensorType& input : row.inputs)
        if (row.op->name() == kernel.op && !input.shape.empty()) types.insert(input.dtype);
    EXPECT_TRUE(types.contains(DType::f32)) << "no row of op_rows_*.cpp runs " << kernel.op << " in f32";
    EXPECT_TRUE(types.contains(DType::bf16)) << "no row of op_rows_*.cpp runs " << kernel.op << " in bf16";
  }
}

TEST_P(OpTable, agrees_with_double_precision) {
  for_rows([this](const Row& row) {
    Tensors rounded;
    for (const TestTensor& input : inputs_of(row)) rounded.push_back(input.values());
    const Tensors want = row.reference(rounded);
    const std::vector<TestTensor> got = run(row, row.options);
    ASSERT_EQ(want.size(), got.size());
    ASSERT_EQ(row.roundings.size(), got.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      SCOPED_TRACE(fmt::format("output {}", i));
      expect_close(got[i], want[i], row.roundings[i]);
    }
  });
}

TEST_P(OpTable, computes_the_derivatives_of_the_forward_op) {
  for_rows([this](const Row& row) {
    if (!row.differences) return;
    const std::vector<TestTensor> got = run(row, row.options);
    Tensors variables = row.differences->variables;
    for (std::size_t i = 0; i < variables.size(); ++i) {
      if (variables[i].empty()) continue;
      SCOPED_TRACE(fmt::format("output {}", i));
      const Values at = variables[i];
      const Values want = reference::differences(
          [&](const Values& x) {
            variables[i] = x;
            return row.differences->loss(variables);
          },
          at);
      variables[i] = at;
      // Four roundings more for the inputs that the forward op computes anew (statistics, lse), one for 1e-9.
      expect_close(got[i], want, {std::max(0.0, row.roundings[i].f32) + 20, row.roundings[i].bf16});
    }
  });
}

// A CPU's bits must not depend on the number of threads, nor a GPU's on the order in which its threads run: there
// twice the same, on the host in shuffled orders.
TEST_P(OpTable, gives_the_same_bits_on_any_schedule_of_threads) {
  for_rows([this](const Row& row) {
    const std::vector<TestTensor> first = run_scheduled(row, 0);
    for (int schedule = 1; schedule < 4; ++schedule) {
      const std::vector<TestTensor> again = run_scheduled(row, schedule);
      for (std::size_t i = 0; i < first.size(); ++i)
        EXPECT_TRUE(again[i].same_bits(first[i])) << "output " << i << " on schedule " << schedule;
    }
  });
}

TEST_P(OpTable, accumulates_onto_what_was_there) {
  for_rows([this](const Row& row) {
    if (!accumulates(row)) return;
    const std::vector<TestTensor> fresh = run(row, row.options);
    RunOptions onto_zero = row.options, onto_start = row.options;
    onto_zero.accumulate = onto_start.accumulate = true;
    for (std::size_t i = 0; i < fresh.size(); ++i) {
      const bool sums = row.op->accumulates(static_cast<int>(i));
      const std::int64_t count = fresh[i].type().elements();
      onto_zero.start.push_back(sums ? Values(static_cast<std::size_t>(count)) : Values());
      onto_start.start.push_back(sums ? reference::random_integers(count, i, -8, 8) : Values());
    }
    const std::vector<TestTensor> zero = run(row, onto_zero), sum = run(row, onto_start);
    for (std::size_t i = 0; i < fresh.size(); ++i) {
      SCOPED_TRACE(fmt::format("output {}", i));
      Values want = fresh[i].values();
      if (row.op->accumulates(static_cast<int>(i))) {
        // Zeros may differ in their sign only.
        EXPECT_EQ(zero[i].values(), want);
        for (std::size_t k = 0; k < want.size(); ++k) want[k] += onto_start.start[i][k];
        expect_close(sum[i], want, row.roundings[i]);
      } else {
        EXPECT_TRUE(sum[i].same_bits(fresh[i]));
      }
    }
  });
}

TEST_P(OpTable, gives_the_same_bits_in_place) {
  for_rows([this](const Row& row) {
    const std::vector<int> outputs = in_place_outputs(row);
    if (outputs.empty()) return;
    const std::vector<TestTensor> apart = run(row, row.options);
    for (const int output : outputs) {
      RunOptions options = row.options;
      options.in_place = output;
      const std::vector<TestTensor> in_place = run(row, options);
      for (std::size_t k = 0; k < apart.size(); ++k)
        EXPECT_TRUE(in_place[k].same_bits(apart[k]))
            << "output " << k << " with output " << output << " in place";
    }
  });
}

class Elementwise : public ::testing::TestWithParam<TestBackend> {};

// An element at the end of a row is computed with a part of a vector, one before it with a whole one.
TEST_P(Elementwise, an_element_has_the_same_bits_wherever_it_lies) {
  if (!has_device(GetParam())) GTEST_SKIP() << "no GPU is visible";
  TestDevice device(GetParam());
  constexpr std::int64_t width = 16 + 16 + 11;
  const Values pattern = reference::random_values(16, 1, 2);
  Values repeated;
  for (std::int64_t i = 0; i < width; ++i) repeated.push_back(pattern[static_cast<std::size_t>(i % 16)]);
  Values twice = repeated;
  twice.insert(twice.end(), repeated.begin(), repeated.end());
  const Values statistics = {0.25, 1.5};

  for (const DType type : {DType::f32, DType::bf16}) {
    const TensorType one = matrix(1, width, type), two = matrix(1, 2 * width, type);
    const auto expect_repeated = [&](const Op& op, std::vector<TestTensor> inputs) {
      for (const TestTensor& output : run_op(device, op, inputs)) {
        const Values y = output.values();
        for (std::size_t i = 0; i < y.size(); ++i) {
          if (i % width < 16) continue;
          EXPECT_EQ(y[i], y[i - 16]) << op.name() << " " << name_of(type) << " " << i;
        }
      }
    };
    expect_repeated(Addition(), {TestTensor(one, repeated), TestTensor(one, repeated)});
    expect_repeated(Gelu(), {TestTensor(one, repeated)});
    expect_repeated(GeluGradient(), {TestTensor(one, repeated), TestTensor(one, repeated)});
    expect_repeated(SwiGlu(), {TestTensor(two, twice)});
    expect_repeated(SwiGluGradient(), {TestTensor(one, repeated), TestTensor(two, twice)});
    expect_repeated(Renormalize(NormKind::layer, type),
                    {TestTensor(one, repeated), TestTensor(matrix(1, 2, DType::f32), statistics),
                     TestTensor(vector(width), repeated), TestTensor(vector(width), repeated)});
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, OpTable, ::testing::ValuesIn(kernels_of_all_backends()),
                         [](const auto& kernel) {
                           return test_name_of(kernel.param.device) + "_" + std::string(kernel.param.op);
                         });
INSTANTIATE_TEST_SUITE_P(Devices, Elementwise, ::testing::ValuesIn(compiled_backends()),
                         [](const auto& kind) { return test_name_of(kind.param); });

}  // namespace
}  // namespace muster::testing
