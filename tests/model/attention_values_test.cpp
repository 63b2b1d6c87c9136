// Attention in segments gives what PyTorch's scaled_dot_product_attention gives under their masks:
// tests/reference/make_attention_values.py.
#include <gtest/gtest.h>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/hash.hpp"
#include "core/hdf5.hpp"
#include "core/philox.hpp"
#include "model/ops/attention.hpp"
#include "tests/model/run_op.hpp"

namespace muster::testing {
namespace {

// Our error against f64, by that of PyTorch in the same precision.
constexpr double f32_factor = 2, bf16_factor = 1.5;

class Case {
 public:
  explicit Case(const std::string& name)
      : name_(name),
        file_(H5File::open_to_read("tests/reference/values/attention-segments.h5")),
        json_(nlohmann::json::parse(file_.string_attribute(name, "configuration"))) {
    shape.heads = json_.at("heads");
    shape.kv_heads = json_.at("kv_heads");
    shape.head_size = json_.at("head_size");
    shape.causal = json_.at("causal");
    shape.v_column = std::int64_t{shape.kv_heads} * shape.head_size;
  }

  AttentionShape shape;  // of queries, and of keys and values, in rows of their own

  std::int64_t q_columns() const { return std::int64_t{shape.heads} * shape.head_size; }
  TestTensor q(DType type) const { return input("q", rows("query_starts"), q_columns(), type); }
  TestTensor kv(DType type) const { return input("kv", rows("key_starts"), 2 * shape.v_column, type); }
  TestTensor d_o(DType type) const { return input("d_o", rows("query_starts"), q_columns(), type); }
  TestTensor starts(const std::string& side) const {
    const std::vector<double> starts = json_.at(side);
    return {{{static_cast<std::int64_t>(starts.size())}, DType::i32}, starts};
  }

  // The distance from PyTorch in f64, by the distance of PyTorch in this type.
  double error(const std::string& output, const TestTensor& got) const {
    const auto exact = read<float>(output);
    const auto values = got.values();
    if (exact.size() != values.size()) return INFINITY;
    double squares = 0;
    for (std::size_t i = 0; i < exact.size(); ++i)
      squares += (values[i] - static_cast<double>(exact[i])) * (values[i] - static_cast<double>(exact[i]));
    const char* precision = got.type().dtype == DType::f32 ? "f32_error/" : "bf16_error/";
    return std::sqrt(squares) / read<double>(precision + output).front();
  }

 private:
  std::int64_t rows(const std::string& side) const { return json_.at(side).back(); }

  TestTensor input(const char* tensor, std::int64_t rows, std::int64_t columns, DType type) const {
    std::vector<double> values(static_cast<std::size_t>(rows * columns));
    const std::uint32_t name = fnv1a(name_ + "." + tensor);
    const std::uint64_t seed = json_.at("seed");
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = 4 * (uniform(philox({static_cast<std::uint32_t>(i / 4), 0, 0, name}, seed)[i % 4]) - 0.5f);
    return {{{rows, columns}, type}, values};
  }

  template <class T>
  std::vector<T> read(const std::string& dataset) const {
    const H5Dataset found = file_.dataset(name_ + "/" + dataset);
    std::vector<T> values(found.length());
    found.read<T>(0, values);
    return values;
  }

  std::string name_;
  H5File file_;
  nlohmann::json json_;
};

class AttentionValues : public ::testing::TestWithParam<TestBackend> {};

TEST_P(AttentionValues, in_segments_are_those_of_pytorch) {
  if (!has_device(GetParam())) GTEST_SKIP() << "no GPU is visible";
  TestDevice device(GetParam());
  for (const char* name : {"cross", "cross-head80", "causal", "causal-unequal"}) {
    const Case c(name);
    for (const DType type : {DType::f32, DType::bf16}) {
      SCOPED_TRACE(fmt::format("{} {}", name, name_of(type)));
      const TestTensor query_starts = c.starts("query_starts"), key_starts = c.starts("key_starts");
      std::vector<TestTensor> inputs = {c.q(type), c.kv(type), query_starts, key_starts};
      const std::vector<TestTensor> forward = run_op(device, Attention(c.shape), inputs);
      inputs = {c.d_o(type), c.q(type), c.kv(type), forward[0], forward[1], query_starts, key_starts};
      const std::vector<TestTensor> gradient = run_op(device, AttentionGradient(c.shape, false), inputs);
      const double factor = type == DType::f32 ? f32_factor : bf16_factor;
      double worst = 0;
      for (const auto& [output, got] :
           {std::pair{"o", &forward[0]}, {"d_q", &gradient[0]}, {"d_kv", &gradient[1]}}) {
        const double error = c.error(output, *got);
        EXPECT_LE(error, factor) << output;
        worst = std::max(worst, error);
      }
      std::cout << name << ' ' << name_of(type) << ": errors at most " << worst
                << " times those of PyTorch\n";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, AttentionValues, ::testing::ValuesIn(compiled_backends()),
                         [](const auto& kind) { return test_name_of(kind.param); });

}  // namespace
}  // namespace muster::testing
