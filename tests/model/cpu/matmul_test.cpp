// The matrix product of one instruction set against loops in doubles, on shapes that fill no tile.
#include "model/ops/cpu/matmul.hpp"

#include <algorithm>
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "core/parallel.hpp"
#include "tests/model/cpu/level.hpp"
#include "tests/model/product.hpp"
#include "tests/model/run_op.hpp"

namespace muster::cpu::MUSTER_ISA {
namespace {

using testing::multiply;
using testing::Product;
using testing::sum_tolerance;
using testing::tensor;
using testing::TestTensor;

// Both engines are tested on every machine, whichever of them it would choose.
struct EngineCase {
  MatmulEngine engine;
  DType type;
};

using OF_LEVEL(MatmulOwnEngine) = OfLevel;
class OF_LEVEL(MatmulEngines) : public ::testing::TestWithParam<EngineCase> {
 protected:
  void SetUp() override { skip_without_instruction_set(); }
};
const std::vector<EngineCase> every_engine = {
    {MatmulEngine::own, DType::f32},
    {MatmulEngine::own, DType::bf16},
    {MatmulEngine::onednn, DType::f32},
#if defined(__x86_64__)  // oneDNN has no bf16 elsewhere
    {MatmulEngine::onednn, DType::bf16},
#endif
};
EXPANDED_INSTANTIATE(All, OF_LEVEL(MatmulEngines), ::testing::ValuesIn(every_engine),
                     [](const auto& parameter) {
                       const bool own = parameter.param.engine == MatmulEngine::own;
                       return std::string(own ? "own_" : "onednn_") +
                              std::string(name_of(parameter.param.type));
                     });

// C of m x n, whose rows lie further apart than they are long; between them stays what was there.
TestTensor run_engine(const EngineCase& engine, const MatmulShape& shape, bool a_transposed,
                      bool b_transposed, bool accumulate, int threads) {
  TestTensor a =
      a_transposed ? tensor(shape.k, shape.m, engine.type, 1) : tensor(shape.m, shape.k, engine.type, 1);
  TestTensor b =
      b_transposed ? tensor(shape.n, shape.k, engine.type, 2) : tensor(shape.k, shape.n, engine.type, 2);
  const std::int64_t stride = shape.n + 3;
  const DType type = accumulate ? DType::f32 : engine.type;
  TestTensor c({{shape.m, stride}, type},
               std::vector<double>(static_cast<std::size_t>(shape.m * stride), 4.0));
  const MatrixView a_rows{a.view().data, a.type().columns()}, b_rows{b.view().data, b.type().columns()};
  const Matmul product{engine.type,
                       shape,
                       a_transposed ? a_rows.transposed() : a_rows,
                       b_transposed ? b_rows.transposed() : b_rows,
                       {.data = c.view().data, .dtype = type, .stride = stride, .accumulate = accumulate}};
  const int before = thread_count();
  set_thread_count(threads);
  testing::GuardedMemory workspace(matmul_workspace(product, thread_count(), engine.engine));
  matmul(product, workspace.data(), engine.engine);
  set_thread_count(before);
  EXPECT_TRUE(workspace.intact() && c.intact());
  return c;
}

EXPANDED_TEST_P(OF_LEVEL(MatmulEngines), multiply_every_orientation_of_both_matrices) {
  for (const MatmulShape& shape :
       {MatmulShape{1, 1, 1}, MatmulShape{45, 101, 33}, MatmulShape{9, 50, 1601}, MatmulShape{530, 70, 19}})
    for (const bool a_transposed : {false, true})
      for (const bool b_transposed : {false, true})
        for (const bool accumulate : {false, true}) {
          const Product expected = multiply(tensor(shape.m, shape.k, GetParam().type, 1).values(),
                                            tensor(shape.k, shape.n, GetParam().type, 2).values(), shape.m,
                                            shape.n, shape.k, a_transposed, b_transposed);
          const TestTensor c = run_engine(GetParam(), shape, a_transposed, b_transposed, accumulate, 2);
          const DType type = c.type().dtype;
          const std::vector<double> got = c.values(), tolerance = sum_tolerance(expected, shape.k + 1, type);
          for (std::int64_t i = 0; i < shape.m; ++i)
            for (std::int64_t j = 0; j < shape.n + 3; ++j) {
              const double value = got[static_cast<std::size_t>(i * (shape.n + 3) + j)];
              if (j >= shape.n) {
                ASSERT_EQ(value, 4.0) << "between the rows";
                continue;
              }
              const auto at = static_cast<std::size_t>(i * shape.n + j);
              // What was there counts as one more term of the sum.
              ASSERT_NEAR(value, expected.value[at] + (accumulate ? 4.0 : 0.0),
                          tolerance[at] + (accumulate ? static_cast<double>(shape.k + 1) * 0x1p-22 : 0.0))
                  << shape.m << " x " << shape.n << " x " << shape.k << ", " << a_transposed << b_transposed
                  << accumulate;
            }
        }
}

EXPANDED_TEST_P(OF_LEVEL(MatmulEngines), bits_do_not_depend_on_threads) {
  for (const bool a_transposed : {false, true}) {
    const MatmulShape shape{400, 500, 1700};
    const TestTensor one = run_engine(GetParam(), shape, a_transposed, !a_transposed, a_transposed, 1);
    for (const int threads : {2, 3, 4})
      EXPECT_TRUE(
          run_engine(GetParam(), shape, a_transposed, !a_transposed, a_transposed, threads).same_bits(one));
  }
}

TEST_F(OF_LEVEL(MatmulOwnEngine), bits_of_a_row_do_not_depend_on_the_other_rows) {
  for (const DType type : {DType::f32, DType::bf16}) {
    const EngineCase own{MatmulEngine::own, type};
    const std::vector<double> many = run_engine(own, {67, 301, 1700}, false, true, false, 2).values();
    const std::vector<double> few = run_engine(own, {3, 301, 1700}, false, true, false, 2).values();
    EXPECT_TRUE(std::equal(few.begin(), few.end(), many.begin()));
  }
}

}  // namespace
}  // namespace muster::cpu::MUSTER_ISA
